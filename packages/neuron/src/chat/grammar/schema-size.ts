import { AppError } from 'cortex-core/wire/errors';

const nodesMax = 20_000;
const depthMax = 200;
const charactersMax = 512 * 1024;

/**
 * Refuses a schema that would be slow to compile, before anything recursive looks at it.
 * Errors: `invalid_request`.
 */
export function checkSchemaSize(schema: unknown, param: string): void {
  const fail = (what: string): never => {
    throw new AppError('invalid_request', `${param} is too large: ${what}`, { param });
  };
  let nodes = 0;
  let characters = 0;
  let level: unknown[] = [schema];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > depthMax) fail(`it nests deeper than ${depthMax} levels`);
    const next: unknown[] = [];
    for (const part of level) {
      if (++nodes > nodesMax) fail(`it has more than ${nodesMax} values`);
      if (typeof part === 'string') characters += part.length;
      if (typeof part === 'object' && part !== null) {
        for (const [key, value] of Object.entries(part)) {
          characters += key.length;
          next.push(value);
        }
      }
      if (characters > charactersMax) fail(`it has more than ${charactersMax} characters`);
    }
    level = next;
  }
}
