/**
 * One sample per family: marks of its template, and turns that say the same in every format. `call` is
 * lookup_tide of Kiel for 3 days, `second` is ring_bell without arguments.
 */
export interface FamilySample {
  readonly family: string;
  /** What detection goes by; not a whole template. */
  readonly template: string;
  readonly call: string;
  readonly parallel: string;
  /** A turn that thinks `It floods.` and then says `Mind the gap.` */
  readonly reasoning: string;
  readonly startsInReasoning?: boolean;
  /** A prompt's end that opens the block, where the family's template does so. */
  readonly openPrompt?: string;
  /** Looks like a call and is none. */
  readonly lookalike: string;
  /** Ids the model gives itself. */
  readonly ids?: readonly string[];
}

const json = '{"harbour": "Kiel", "days": 3}';
const call = `{"name": "lookup_tide", "arguments": ${json}}`;
const second = '{"name": "ring_bell", "arguments": {}}';
const parameters = `{"name": "lookup_tide", "parameters": ${json}}`;
const secondParameters = '{"name": "ring_bell", "parameters": {}}';
const think = '<think>\nIt floods.\n</think>\n\nMind the gap.';
const unknown = '{"name": "sell_boat", "arguments": {}}';

export const samples: readonly FamilySample[] = [
  {
    family: 'hermes',
    template: '{% if tools %}<tools></tools>{% endif %}<tool_call></tool_call><think></think>',
    call: `<tool_call>\n${call}\n</tool_call>`,
    parallel: `<tool_call>\n${call}\n</tool_call>\n<tool_call>\n${second}\n</tool_call>`,
    reasoning: think,
    openPrompt: '<|im_start|>assistant\n<think>\n',
    lookalike: `<tool_call>\n${unknown}\n</tool_call>`,
  },
  {
    family: 'qwen-coder',
    template: '{{ tools }}<tool_call>\n<function=x>\n<parameter=y>\n</parameter></function></tool_call>',
    call: xml('<tool_call>', '</tool_call>', '\n'),
    parallel: `${xml('<tool_call>', '</tool_call>', '\n')}\n<tool_call>\n<function=ring_bell>\n</function>\n</tool_call>`,
    reasoning: think,
    openPrompt: '<|im_start|>assistant\n<think>\n',
    lookalike: '<tool_call>\n<function=sell_boat>\n</function>\n</tool_call>',
  },
  {
    family: 'seed-oss',
    template: '{{ tools }}<seed:tool_call><function=x><parameter=y></seed:tool_call></seed:think>',
    call: xml('<seed:tool_call>', '</seed:tool_call>', ''),
    parallel: `${xml('<seed:tool_call>', '</seed:tool_call>', '')}\n<seed:tool_call>\n<function=ring_bell>\n</function>\n</seed:tool_call>`,
    reasoning: '<seed:think>It floods.</seed:think>Mind the gap.',
    lookalike: '<seed:tool_call>\n<function=sell_boat>\n</function>\n</seed:tool_call>',
  },
  {
    family: 'llama3',
    template: '{{ tools }}<|start_header_id|>{"name": x, "parameters": y}<|python_tag|>',
    call: parameters,
    parallel: `${parameters}; ${secondParameters}`,
    reasoning: think,
    lookalike: '{"name": "sell_boat", "parameters": {}}',
  },
  {
    family: 'llama4',
    template: '{{ tools }}<|header_start|><|python_start|>',
    call: '[lookup_tide(harbour="Kiel", days=3)]',
    parallel: '<|python_start|>[lookup_tide(harbour="Kiel", days=3), ring_bell()]<|python_end|>',
    reasoning: think,
    lookalike: '[sell_boat(harbour="Kiel")]',
  },
  {
    family: 'mistral',
    template: '{{ tools }}[AVAILABLE_TOOLS][TOOL_CALLS][THINK][/THINK]',
    call: `[TOOL_CALLS][${call.slice(0, -1)}, "id": "a1b2c3d4e"}]`,
    parallel: `[TOOL_CALLS][${call}, ${second}]`,
    reasoning: '[THINK]It floods.[/THINK]Mind the gap.',
    openPrompt: '[/INST][THINK]',
    lookalike: `[TOOL_CALLS][${unknown}]`,
  },
  {
    family: 'mistral',
    template: '{{ tools }}[AVAILABLE_TOOLS][TOOL_CALLS]x[CALL_ID]y[ARGS]z[THINK][/THINK]',
    call: `[TOOL_CALLS]lookup_tide[CALL_ID]a1b2c3d4e[ARGS]${json}`,
    parallel: `[TOOL_CALLS]lookup_tide[ARGS]${json}[TOOL_CALLS]ring_bell[ARGS]{}`,
    reasoning: '[THINK]It floods.[/THINK]Mind the gap.',
    lookalike: '[TOOL_CALLS]sell_boat[ARGS]{}',
    ids: ['a1b2c3d4e'],
  },
  {
    family: 'deepseek',
    template: '{{ tools }}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>```json<think></think>',
    call: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>lookup_tide\n\`\`\`json\n${json}\n\`\`\`<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
    parallel: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>lookup_tide\n\`\`\`json\n${json}\n\`\`\`<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>ring_bell\n\`\`\`json\n{}\n\`\`\`<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
    reasoning: think,
    openPrompt: '<｜Assistant｜><think>\n',
    lookalike:
      '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>sell_boat\n```json\n{}\n```<｜tool▁call▁end｜>',
  },
  {
    family: 'deepseek',
    template: '{{ tools }}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><think></think>',
    call: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>lookup_tide<｜tool▁sep｜>${json}<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
    parallel: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>lookup_tide<｜tool▁sep｜>${json}<｜tool▁call▁end｜><｜tool▁call▁begin｜>ring_bell<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
    reasoning: 'It floods.</think>Mind the gap.',
    startsInReasoning: true,
    openPrompt: '<｜Assistant｜><think>',
    lookalike: '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>sell_boat<｜tool▁sep｜>{}<｜tool▁call▁end｜>',
  },
  {
    family: 'deepseek-dsml',
    template: "{{ tools }}{% set dsml_token = '｜DSML｜' %}function_calls<think></think>",
    call: dsml(false),
    parallel: dsml(true),
    reasoning: 'It floods.</think>Mind the gap.',
    startsInReasoning: true,
    lookalike:
      '<｜DSML｜function_calls>\n<｜DSML｜invoke name="sell_boat">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
  },
  {
    family: 'harmony',
    template: '{{ tools }}<|start|>assistant<|channel|>final<|message|>',
    call: `<|channel|>commentary to=functions.lookup_tide <|constrain|>json<|message|>${json}<|call|>`,
    parallel: `<|channel|>commentary to=functions.lookup_tide <|constrain|>json<|message|>${json}<|call|><|start|>assistant to=functions.ring_bell<|channel|>commentary json<|message|>{}<|call|>`,
    reasoning:
      '<|channel|>analysis<|message|>It floods.<|end|><|start|>assistant<|channel|>final<|message|>Mind the gap.',
    openPrompt: '<|start|>assistant<|channel|>analysis<|message|>',
    lookalike: '<|channel|>commentary to=browser.search code<|message|>{"q": 1}',
  },
  {
    family: 'glm',
    template: '{{ tools }}<tool_call>{function-name}\n<arg_key>k</arg_key><think></think>',
    call: '<tool_call>lookup_tide\n<arg_key>harbour</arg_key>\n<arg_value>Kiel</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>',
    parallel:
      '<tool_call>lookup_tide<arg_key>harbour</arg_key><arg_value>Kiel</arg_value><arg_key>days</arg_key><arg_value>3</arg_value></tool_call><tool_call>ring_bell</tool_call>',
    reasoning: '\n<think>It floods.</think>\nMind the gap.',
    openPrompt: '<|assistant|><think>',
    lookalike: '<tool_call>sell_boat\n<arg_key>k</arg_key>\n<arg_value>v</arg_value>\n</tool_call>',
  },
  {
    family: 'kimi',
    template: '{{ tools }}<|tool_calls_section_begin|><|tool_call_begin|><think></think>',
    call: `<|tool_calls_section_begin|><|tool_call_begin|>functions.lookup_tide:4<|tool_call_argument_begin|>${json}<|tool_call_end|><|tool_calls_section_end|>`,
    parallel: `<|tool_calls_section_begin|><|tool_call_begin|>functions.lookup_tide:4<|tool_call_argument_begin|>${json}<|tool_call_end|><|tool_call_begin|>functions.ring_bell:5<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>`,
    reasoning: think,
    lookalike: '<|tool_call_begin|>functions.sell_boat:0<|tool_call_argument_begin|>{}<|tool_call_end|>',
    ids: ['functions.lookup_tide:4', 'functions.ring_bell:5'],
  },
  {
    family: 'minimax',
    template: '{{ tools }}<minimax:tool_call><think></think>',
    call: invoke(''),
    parallel: invoke('<invoke name="ring_bell">\n</invoke>\n'),
    reasoning: 'It floods.\n</think>\n\nMind the gap.',
    startsInReasoning: true,
    openPrompt: ']~b]ai\n<think>\n',
    lookalike: '<minimax:tool_call>\n<invoke name="sell_boat">\n</invoke>\n</minimax:tool_call>',
  },
  {
    family: 'gemma3',
    template: '<start_of_turn>model\n<end_of_turn>',
    call: '```tool_code\nprint(lookup_tide(harbour="Kiel", days=3))\n```',
    parallel: `${parameters}\n${secondParameters}`,
    reasoning: '<think>It floods.</think>Mind the gap.',
    lookalike: '```tool_code\nsell_boat(harbour="Kiel")\n```',
  },
  {
    family: 'gemma4',
    template: "{{ tools }}{{ '<|tool_call>call:' }}<|channel>thought<channel|>",
    call: '<|tool_call>call:lookup_tide{harbour:<|"|>Kiel<|"|>,days:3}<tool_call|>',
    parallel:
      '<|tool_call>call:lookup_tide{days:3,harbour:<|"|>Kiel<|"|>}<tool_call|><|tool_call>call:ring_bell{}<tool_call|>',
    reasoning: '<|channel>thought\nIt floods.\n<channel|>Mind the gap.',
    openPrompt: '<|turn>model\n<|channel>thought\n',
    lookalike: '<|tool_call>call:sell_boat{}<tool_call|>',
  },
  {
    family: 'function-gemma',
    template: '{{ tools }}<start_function_call><start_of_turn>',
    call: '<start_function_call>call:lookup_tide{harbour:<escape>Kiel<escape>,days:3}<end_function_call>',
    parallel:
      '<start_function_call>call:lookup_tide{harbour:<escape>Kiel<escape>,days:3}<end_function_call><start_function_call>call:ring_bell{}<end_function_call>',
    reasoning: '<think>It floods.</think>Mind the gap.',
    lookalike: '<start_function_call>call:sell_boat{}<end_function_call>',
  },
  {
    family: 'granite',
    template: '{{ available_tools }}<|start_of_role|>assistant<|tool_call|></think>',
    call: `<|tool_call|>[${call}]`,
    parallel: `<|tool_call|>[${call}, ${second}]`,
    reasoning: '<think>It floods.</think><response>Mind the gap.</response>',
    lookalike: `<|tool_call|>[${unknown}]`,
  },
  {
    family: 'granite',
    template: '{{ tools }}<|start_of_role|>Here is my thought process: x Here is my response: y',
    call: `<|tool_call|>[${call}]`,
    parallel: `<tool_call>[${call}, ${second}]`,
    reasoning: 'Here is my thought process: It floods.\n\nHere is my response: Mind the gap.',
    lookalike: `<|tool_call|>[${unknown}]`,
  },
  {
    family: 'command-r',
    template: "{{ tools }}<|CHATBOT_TOKEN|>{{ '\\nAction:\\n```json' }}",
    call: `Action: \`\`\`json\n[\n    {\n        "tool_name": "lookup_tide",\n        "parameters": ${json}\n    }\n]\`\`\``,
    parallel: `Action:\n\`\`\`json\n[{"tool_name": "lookup_tide", "parameters": ${json}}, {"tool_name": "ring_bell", "parameters": {}}]\n\`\`\``,
    reasoning: '<think>It floods.</think>Mind the gap.',
    lookalike: 'Action: ```json\n[{"tool_name": "sell_boat", "parameters": {}}]\n```',
  },
  {
    family: 'command-a',
    template: '{{ tools }}<|CHATBOT_TOKEN|><|START_ACTION|><|START_THINKING|><|END_THINKING|>',
    call: `<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "lookup_tide", "parameters": ${json}}\n]<|END_ACTION|>`,
    parallel: `<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "lookup_tide", "parameters": ${json}},\n{"tool_call_id": "1", "tool_name": "ring_bell", "parameters": {}}]<|END_ACTION|>`,
    reasoning: '<|START_THINKING|>It floods.<|END_THINKING|><|START_RESPONSE|>Mind the gap.<|END_RESPONSE|>',
    openPrompt: '<|CHATBOT_TOKEN|><|START_THINKING|>',
    lookalike:
      '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "sell_boat", "parameters": {}}]<|END_ACTION|>',
  },
  {
    family: 'phi4',
    template: '{{ tools }}<|tool|><|/tool|>',
    call: `<|tool_call|>[${call}]<|/tool_call|>`,
    parallel: `functools[${call}, ${second}]`,
    reasoning: think,
    lookalike: `<|tool_call|>[${unknown}]<|/tool_call|>`,
  },
  {
    family: 'lfm2',
    template: '{{ tools }}<|tool_list_start|><|tool_call_start|>',
    call: '<|tool_call_start|>[lookup_tide(harbour="Kiel", days=3)]<|tool_call_end|>',
    parallel: "<|tool_call_start|>[lookup_tide(harbour='Kiel', days=3), ring_bell()]<|tool_call_end|>",
    reasoning: think,
    lookalike: '<|tool_call_start|>[sell_boat()]<|tool_call_end|>',
  },
  {
    family: 'nemotron',
    template: '{{ tools }}<TOOLCALL></TOOLCALL><think></think>',
    call: `<TOOLCALL>[${call}]</TOOLCALL>`,
    parallel: `<TOOLCALL>[${call}, ${second}]</TOOLCALL>`,
    reasoning: think,
    openPrompt: '<SPECIAL_11>Assistant\n<think>\n',
    lookalike: `<TOOLCALL>[${unknown}]</TOOLCALL>`,
  },
  {
    family: 'functionary-v3.1',
    template: '{{ tools }}<function=example_function_name></function><|python_tag|>',
    call: `<function=lookup_tide>${json}</function>`,
    parallel: `<function=lookup_tide>${json}</function><function=ring_bell>{}</function>`,
    reasoning: think,
    lookalike: '<function=sell_boat>{}</function>',
  },
  {
    family: 'functionary-v3.2',
    template: "{{ tools }}'>>>all\\n'",
    call: `lookup_tide\n${json}`,
    parallel: `lookup_tide\n${json}>>>ring_bell\n{}`,
    // Has no reasoning of its own.
    reasoning: '',
    lookalike: 'sell_boat\n{}',
  },
  {
    family: 'functools',
    template: '{{ tools }} functools[',
    call: ` functools[${call}]`,
    parallel: ` functools[${call}, ${second}]`,
    reasoning: think,
    lookalike: `functools[${unknown}]`,
  },
  {
    family: 'apertus',
    template: '{{ tools }}<|tools_prefix|><|tools_suffix|><|inner_prefix|><|inner_suffix|>',
    call: `<|tools_prefix|>[{"lookup_tide": ${json}}]<|tools_suffix|>`,
    parallel: `<|tools_prefix|>[{"lookup_tide": ${json}}, {"ring_bell": {}}]<|tools_suffix|>`,
    reasoning: '<|inner_prefix|>It floods.<|inner_suffix|>Mind the gap.',
    lookalike: '<|tools_prefix|>[{"sell_boat": {}}]<|tools_suffix|>',
  },
  {
    family: 'tool-calls-tag',
    template: '{{ tools }}<tool_calls></tool_calls><thinking></thinking>',
    call: `<tool_calls>[${call}]</tool_calls>`,
    parallel: `<tool_calls>\n${call}\n${second}\n</tool_calls>`,
    reasoning: '<thinking>It floods.</thinking>Mind the gap.',
    lookalike: `<tool_calls>[${unknown}]</tool_calls>`,
  },
  {
    family: 'tool-calls-tag',
    template: "{{ available_tools }}<tool_calls></tool_calls>'[BEGIN FINAL RESPONSE]'",
    call: `<tool_calls>[${call}]</tool_calls>`,
    parallel: `<tool_calls>[${call}, ${second}]</tool_calls>`,
    reasoning: 'It floods.\n[BEGIN FINAL RESPONSE]\nMind the gap.\n[END FINAL RESPONSE]',
    startsInReasoning: true,
    openPrompt: '<|begin_assistant|>\nHere are my reasoning steps:\n',
    lookalike: `<tool_calls>[${unknown}]</tool_calls>`,
  },
  {
    family: 'gigachat',
    template: '{{ tools }}<|role_sep|><|message_sep|>',
    call: `<|message_sep|>\n\nfunction call<|role_sep|>\n${call}`,
    parallel: `<|function_call|>${call}<|function_call|>${second}`,
    reasoning: think,
    lookalike: `<|function_call|>${unknown}`,
  },
  {
    family: 'generic',
    template: '{% for m in messages %}{{ m.content }}{% endfor %}',
    call,
    parallel: `\`\`\`json\n${call}\n\`\`\`\n\`\`\`json\n${second}\n\`\`\``,
    reasoning: think,
    lookalike: unknown,
  },
];

function xml(open: string, close: string, line: string): string {
  const parameter = (key: string, value: string): string =>
    `<parameter=${key}>${line}${value}${line}</parameter>\n`;
  return `${open}\n<function=lookup_tide>\n${parameter('harbour', 'Kiel')}${parameter('days', '3')}</function>\n${close}`;
}

function invoke(more: string): string {
  const parameters = '<parameter name="harbour">Kiel</parameter>\n<parameter name="days">3</parameter>\n';
  return `<minimax:tool_call>\n<invoke name="lookup_tide">\n${parameters}</invoke>\n${more}</minimax:tool_call>`;
}

function dsml(isParallel: boolean): string {
  const more = isParallel ? '\n<｜DSML｜invoke name="ring_bell">\n</｜DSML｜invoke>' : '';
  return (
    '<｜DSML｜function_calls>\n<｜DSML｜invoke name="lookup_tide">\n' +
    '<｜DSML｜parameter name="harbour" string="true">Kiel</｜DSML｜parameter>\n' +
    `<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n</｜DSML｜invoke>${more}\n</｜DSML｜function_calls>`
  );
}
