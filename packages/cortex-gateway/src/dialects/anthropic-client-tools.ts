/**
 * Tools that Anthropic's models know without being told and that the client executes: name, description and
 * schema as docs.anthropic.com describes each, for models that have to be told.
 */
import type { InnerTool } from './inner/inner-request.ts';
import type { JsonObject } from './request-body.ts';

interface ClientTool {
  /** Of `type`, before the date. */
  readonly family: string;
  readonly name: string;
  readonly description: string;
  readonly properties: JsonObject;
  readonly required: readonly string[];
}

const text = (description: string): JsonObject => ({ type: 'string', description });
const count = (description: string): JsonObject => ({ type: 'integer', description });
const oneOf = (values: readonly string[]): JsonObject => ({ type: 'string', enum: values });
const pair = (description: string): JsonObject => ({
  ...{ type: 'array', items: { type: 'integer' }, minItems: 2, maxItems: 2, description },
});

const clientTools: readonly ClientTool[] = [
  {
    family: 'bash',
    name: 'bash',
    description: 'Runs a command in a shell that persists between calls.',
    properties: {
      command: text('The command to run; required unless restarting'),
      restart: { type: 'boolean', description: 'true restarts the shell' },
    },
    required: [],
  },
  {
    family: 'text_editor',
    name: 'str_replace_based_edit_tool',
    description: 'Views, creates and edits text files.',
    properties: {
      command: oneOf(['view', 'create', 'str_replace', 'insert']),
      path: text('Absolute path of a file or directory'),
      view_range: pair('First and last line to view, from 1; -1 is the end'),
      file_text: text('Content for create'),
      old_str: text('Text to replace; it must occur exactly once'),
      new_str: text('Text to put in its place'),
      insert_line: count('Line after which to insert; 0 is the beginning'),
      insert_text: text('Text to insert'),
    },
    required: ['command', 'path'],
  },
  {
    family: 'memory',
    name: 'memory',
    description: 'Keeps notes as files below /memories, from one conversation to the next.',
    properties: {
      command: oneOf(['view', 'create', 'str_replace', 'insert', 'delete', 'rename']),
      path: text('Path below /memories'),
      view_range: pair('First and last line to view'),
      file_text: text('Content for create'),
      old_str: text('Text to replace'),
      new_str: text('Text to put in its place'),
      insert_line: count('Line after which to insert'),
      insert_text: text('Text to insert'),
      old_path: text('Path to rename'),
      new_path: text('Its new name'),
    },
    required: ['command'],
  },
  {
    family: 'computer',
    name: 'computer',
    description: 'Looks at a screen and uses its mouse and keyboard.',
    properties: {
      action: oneOf([
        ...['key', 'hold_key', 'type', 'mouse_move', 'left_mouse_down', 'left_mouse_up', 'left_click'],
        ...['left_click_drag', 'right_click', 'middle_click', 'double_click', 'triple_click', 'scroll'],
        ...['wait', 'screenshot', 'cursor_position', 'zoom'],
      ]),
      coordinate: pair('x and y in pixels, from the upper left'),
      start_coordinate: pair('Where a drag begins'),
      region: { type: 'array', items: { type: 'integer' }, minItems: 4, maxItems: 4 },
      text: text('Text to type, or keys such as ctrl+s'),
      scroll_direction: oneOf(['up', 'down', 'left', 'right']),
      scroll_amount: count('Clicks of the wheel'),
      duration: { type: 'number', description: 'Seconds to hold or wait' },
    },
    required: ['action'],
  },
];

/** `type`: e.g. `bash_20250124`. Null for what the client does not execute. */
export function clientToolOf(type: string, name: string | null): InnerTool | null {
  const family = /^(.+)_\d{8}$/.exec(type)?.[1];
  const tool = clientTools.find((each) => each.family === family);
  if (tool === undefined) return null;
  const { description, properties, required } = tool;
  const parameters = { type: 'object', properties, required };
  // older text editors have another name, which the client listens to
  const isName = name !== null && /^[a-zA-Z0-9_-]{1,128}$/.test(name);
  return { name: isName ? name : tool.name, description, parameters, strict: null };
}
