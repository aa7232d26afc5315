/** A response that is whole as a stream: the events of its first time, each text in one piece. */
import type { ResponseItemStatus, ResponseObject, ResponseOutputItem } from 'cortex-core/wire/responses';
import { ItemWriter, type MakeItem } from './item-writer.ts';
import { EventFrames, endEventOf } from './responses-stream.ts';

export function replayResponse(response: ResponseObject): Uint8Array {
  const frames = new EventFrames();
  const started: ResponseObject = {
    ...response,
    ...{ status: 'in_progress', completed_at: null, error: null, incomplete_details: null },
    ...{ output: [], usage: null },
  };
  frames.add({ type: 'response.created', response: started });
  frames.add({ type: 'response.in_progress', response: started });
  for (const [index, item] of response.output.entries()) {
    const writer = new ItemWriter(index, makerOf(item), (event) => frames.add(event));
    writer.append(textOf(item));
    writer.close(item.status === 'incomplete' ? 'incomplete' : 'completed');
  }
  frames.add({ type: endEventOf(response), response });
  return frames.flush();
}

function textOf(item: ResponseOutputItem): string {
  switch (item.type) {
    case 'message':
      return item.content[0]?.text ?? '';
    case 'reasoning':
      return (item.summary[0] ?? item.content?.[0])?.text ?? '';
    case 'function_call':
      return item.arguments;
    case 'custom_tool_call':
      return item.input;
    case 'tool_search_call':
      return typeof item.arguments === 'string' ? item.arguments : JSON.stringify(item.arguments);
    default:
      return item satisfies never;
  }
}

function makerOf(item: ResponseOutputItem): MakeItem {
  return (status, text) => (status === item.status ? item : withText(item, status, text));
}

function withText(item: ResponseOutputItem, status: ResponseItemStatus, text: string): ResponseOutputItem {
  switch (item.type) {
    case 'message':
      return { ...item, status, content: [{ type: 'output_text', text, annotations: [], logprobs: [] }] };
    case 'reasoning': {
      const hidden = item.encrypted_content === undefined ? {} : { encrypted_content: null };
      if (item.summary.length > 0) {
        return { ...item, status, ...hidden, summary: [{ type: 'summary_text', text }] };
      }
      return { ...item, status, ...hidden, content: [{ type: 'reasoning_text', text }] };
    }
    case 'function_call':
      return { ...item, status, arguments: text };
    case 'custom_tool_call':
      return { ...item, status, input: text };
    case 'tool_search_call':
      return { ...item, status, arguments: {} };
    default:
      return item satisfies never;
  }
}
