/** Content blocks of a Messages request -> parts. Nothing in a tool's result is refused for its kind. */
import { booleanAt, faultAt, listAt, maybe, objectAt, quoted, stringAt } from './anthropic-fields.ts';
import { hiddenText } from './anthropic-signature.ts';
import { changeTools, type MessagesTools } from './anthropic-tools.ts';
import type { InnerPart } from './inner/inner-request.ts';
import type { JsonObject } from './request-body.ts';

export interface ContentContext {
  readonly role: 'user' | 'assistant' | 'system';
  readonly tools: MessagesTools;
}

/** Blocks of tools that ran on another vendor's servers: their outcome is told by the text around them. */
const foreignBlocks = new RegExp(
  '^(?:server_tool_use|mcp_tool_use|mcp_tool_listing|container_upload|redacted_thinking|fallback|' +
    '\\w+_tool_result)$',
);

export function readContent(value: unknown, path: string, context: ContentContext): InnerPart[] {
  if (typeof value === 'string') return textParts(value);
  const parts: InnerPart[] = [];
  const ids = new Set<string>();
  for (const [at, each] of listAt(value, path).entries()) {
    const where = `${path}.${at}`;
    const block = objectAt(each, where);
    const type = stringAt(block.type, `${where}.type`);
    for (const part of readBlock(block, type, where, context)) {
      checkId(part, where, ids);
      parts.push(part);
    }
  }
  return parts;
}

function checkId(part: InnerPart, path: string, ids: Set<string>): void {
  const id = part.type === 'call' ? part.id : part.type === 'result' ? part.callId : null;
  if (id === null) return;
  if (ids.has(id)) {
    throw part.type === 'call'
      ? faultAt(`${path}.id`, `\`tool_use\` ids must be unique; "${quoted(id)}" is there twice`)
      : faultAt(
          `${path}.tool_use_id`,
          `each tool_use must have a single result. Found multiple blocks with id: ${quoted(id)}`,
        );
  }
  ids.add(id);
}

function readBlock(block: JsonObject, type: string, path: string, context: ContentContext): InnerPart[] {
  switch (type) {
    case 'text':
      return textParts(stringAt(block.text, `${path}.text`));
    case 'thinking':
      return readThinking(block, path);
    case 'tool_use':
      if (context.role !== 'assistant') throw misplaced(path, type, 'assistant');
      return [readToolUse(block, path, context)];
    case 'tool_result':
      if (context.role !== 'user') throw misplaced(path, type, 'user');
      return [readToolResult(block, path, context)];
    case 'image':
    case 'document':
      if (context.role !== 'user') throw misplaced(path, type, 'user');
      return readMedia(block, type, path, context);
    case 'search_result':
      return readSearchResult(block, path, context);
    case 'tool_reference':
      return readReference(block, path, context);
    case 'tool_addition':
    case 'tool_removal':
      if (context.role !== 'system') throw misplaced(path, type, 'system');
      changeTools(block, path, context.tools);
      return [];
    case 'compaction':
      return textParts(maybe(block.content, `${path}.content`, stringAt) ?? '');
    default:
      if (foreignBlocks.test(type)) return [];
      throw faultAt(
        `${path}.type`,
        `Input tag '${quoted(type)}' does not match any of the expected tags: 'text', 'image', 'document', ` +
          `'search_result', 'thinking', 'redacted_thinking', 'tool_use', 'tool_result'`,
      );
  }
}

function misplaced(path: string, type: string, role: string): Error {
  return faultAt(`${path}.type`, `\`${type}\` blocks can only be in \`${role}\` messages`);
}

function textParts(text: string): InnerPart[] {
  return text === '' ? [] : [{ type: 'text', text }];
}

/** The signature may be anybody's. */
function readThinking(block: JsonObject, path: string): InnerPart[] {
  const shown = maybe(block.thinking, `${path}.thinking`, stringAt) ?? '';
  const text = shown === '' ? hiddenText(block.signature) : shown;
  return text === '' ? [] : [{ type: 'reasoning', text }];
}

function readToolUse(block: JsonObject, path: string, { tools }: ContentContext): InnerPart {
  const id = stringAt(block.id, `${path}.id`);
  const name = stringAt(block.name, `${path}.name`);
  if (id === '') throw faultAt(`${path}.id`, 'String should have at least 1 character');
  if (name === '') throw faultAt(`${path}.name`, 'String should have at least 1 character');
  tools.referred.add(name);
  const input = maybe(block.input, `${path}.input`, objectAt) ?? {};
  return { type: 'call', id, name, arguments: JSON.stringify(input) };
}

function readToolResult(block: JsonObject, path: string, context: ContentContext): InnerPart {
  const callId = stringAt(block.tool_use_id, `${path}.tool_use_id`);
  const isError = maybe(block.is_error, `${path}.is_error`, booleanAt) ?? false;
  const { content } = block;
  if (content === undefined || content === null || typeof content === 'string') {
    return { type: 'result', callId, parts: textParts(content ?? ''), isError };
  }
  const parts: InnerPart[] = [];
  for (const [at, each] of listAt(content, `${path}.content`).entries()) {
    const where = `${path}.content.${at}`;
    const item = objectAt(each, where);
    const type = stringAt(item.type, `${where}.type`);
    if (resultBlocks.has(type)) parts.push(...readBlock(item, type, where, context));
    else parts.push({ type: 'text', text: `[${quoted(type)} omitted: not known here]` });
  }
  return { type: 'result', callId, parts, isError };
}

const resultBlocks = new Set(['text', 'image', 'document', 'search_result', 'tool_reference']);

function readMedia(
  block: JsonObject,
  type: 'image' | 'document',
  path: string,
  context: ContentContext,
): InnerPart[] {
  const source = objectAt(block.source, `${path}.source`);
  const kind = stringAt(source.type, `${path}.source.type`);
  const at = (name: string): string => stringAt(source[name], `${path}.source.${name}`);
  if (type === 'image') {
    if (kind === 'base64') return [{ type, url: `data:${at('media_type')};base64,${at('data')}`, path }];
    if (kind === 'url') return [{ type, url: at('url'), path }];
    // of a file store that is elsewhere
    if (kind === 'file') return [{ type, url: `file:${at('file_id')}`, path }];
    throw unknownSource(path, kind, `'base64', 'url' or 'file'`);
  }
  const title = maybe(block.title, `${path}.title`, stringAt);
  switch (kind) {
    case 'base64':
      return [{ type, title, mediaType: at('media_type'), data: at('data'), path }];
    case 'url':
    case 'file':
      return [
        {
          type,
          title: title ?? at(kind === 'url' ? 'url' : 'file_id'),
          mediaType: 'application/pdf',
          data: '',
          path,
        },
      ];
    case 'text':
      return titled('document', title, [{ type: 'text', text: at('data') }]);
    case 'content':
      return titled('document', title, readContent(source.content, `${path}.source.content`, context));
    default:
      throw unknownSource(path, kind, `'base64', 'text', 'content', 'url' or 'file'`);
  }
}

function unknownSource(path: string, kind: string, known: string): Error {
  return faultAt(`${path}.source.type`, `Input tag '${quoted(kind)}' does not match: use ${known}`);
}

function titled(kind: string, title: string | null, parts: readonly InnerPart[]): InnerPart[] {
  const head = `<${kind}${title === null ? '' : ` title=${JSON.stringify(title)}`}>\n`;
  return [{ type: 'text', text: head }, ...parts, { type: 'text', text: `\n</${kind}>\n` }];
}

function readSearchResult(block: JsonObject, path: string, context: ContentContext): InnerPart[] {
  const title = maybe(block.title, `${path}.title`, stringAt);
  const source = maybe(block.source, `${path}.source`, stringAt);
  const label = [title, source].filter((each) => each !== null).join(', ');
  return titled('search_result', label, readContent(block.content ?? [], `${path}.content`, context));
}

/** A tool that a search has found: the model gets its definition here, and may call it from now on. */
function readReference(block: JsonObject, path: string, { tools }: ContentContext): InnerPart[] {
  const name = stringAt(block.tool_name, `${path}.tool_name`);
  const tool = tools.known.get(name);
  if (tool === undefined) return textParts(`[tool ${quoted(name)}]\n`);
  tools.referred.add(name);
  const { description, parameters } = tool;
  const line = JSON.stringify({ name, ...(description === null ? {} : { description }), parameters });
  return textParts(`<functions>\n<function>${line}</function>\n</functions>\n`);
}
