/** Content of a message or of a tool's output -> parts of a turn. */
import type { InnerPart } from '../inner/inner-request.ts';
import type { JsonObject } from '../request-body.ts';
import { faultAt, maybe, nameAt, objectAt, textAt, unsupportedAt, wrongType, wrongValue } from './fields.ts';

const partTypes = ['input_text', 'output_text', 'refusal', 'input_image', 'input_file', 'input_audio'];

/** A string, or a list of parts. */
export function readContent(value: unknown, path: string): readonly InnerPart[] {
  if (typeof value === 'string') return [{ type: 'text', text: value }];
  if (!Array.isArray(value)) throw wrongType(value, path, 'one of a string or an array');
  return value.map((each, at) => readPart(objectAt(each, `${path}[${at}]`), `${path}[${at}]`));
}

function readPart(part: JsonObject, path: string): InnerPart {
  const type = textAt(part.type, `${path}.type`);
  switch (type) {
    case 'input_text':
    case 'output_text':
    case 'text':
    case 'summary_text':
    case 'reasoning_text':
      return { type: 'text', text: textAt(part.text, `${path}.text`) };
    case 'refusal':
      return { type: 'text', text: textAt(part.refusal, `${path}.refusal`) };
    case 'input_image':
      return readImage(part, path);
    case 'input_file':
      return readFile(part, path);
    case 'input_audio': {
      const place = `${path}.input_audio`;
      const audio = objectAt(part.input_audio, place);
      const data = textAt(audio.data, `${place}.data`);
      return { type: 'audio', data, format: nameAt(audio.format, `${place}.format`), path };
    }
    default:
      throw wrongValue(type, `${path}.type`, partTypes);
  }
}

function readImage(part: JsonObject, path: string): InnerPart {
  const place = `${path}.image_url`;
  const detail = maybe(part.detail, `${path}.detail`, textAt);
  if (typeof part.file_id === 'string' && typeof part.image_url !== 'string') throw noFiles(path);
  const url = textAt(part.image_url, place);
  if (!/^(?:data:image\/|https?:\/\/)/i.test(url)) {
    const message = `Invalid '${place}'. Expected a base64 data URL (data:image/...) or an http(s) URL.`;
    throw faultAt(place, message);
  }
  return { type: 'image', url, ...(detail === null ? {} : { detail }), path };
}

/** Text goes on as text; what is none stays a document, which the encoder refuses or leaves a note for. */
function readFile(part: JsonObject, path: string): InnerPart {
  if (typeof part.file_data !== 'string') {
    if (typeof part.file_id === 'string') throw noFiles(path);
    if (typeof part.file_url === 'string') {
      throw unsupportedAt(`${path}.file_url`, 'Files are not fetched here; send the bytes as file_data.');
    }
  }
  const place = `${path}.file_data`;
  const data = textAt(part.file_data, place);
  const title = maybe(part.filename, `${path}.filename`, textAt);
  const match = /^data:([^;,]*)[^,]*;base64,/i.exec(data.slice(0, 512));
  const mediaType = match?.[1]?.toLowerCase() || 'application/octet-stream';
  const base64 = match === null ? data : data.slice(match[0].length);
  if (!/^text\/|\bjson$|\bxml$/.test(mediaType))
    return { type: 'document', title, mediaType, data: base64, path };
  const text = Buffer.from(base64, 'base64').toString('utf8');
  return { type: 'text', text: title === null ? text : `[file: ${title}]\n${text}` };
}

function noFiles(path: string): Error {
  return unsupportedAt(
    `${path}.file_id`,
    'There is no Files API here; send the bytes (file_data, image_url).',
  );
}
