/** A place in a configuration: table names and array indexes from the root. */
export type KeyPath = readonly (string | number)[];

/** A key for maps; no two paths share one. */
export function pathId(path: KeyPath): string {
  return JSON.stringify(path.map(String));
}

/** `neurons[0].endpoint`, `aliases."gpt-4.1"`. */
export function formatPath(path: KeyPath): string {
  let text = '';
  for (const segment of path) {
    if (typeof segment === 'number') text += `[${segment}]`;
    else text += `${text === '' ? '' : '.'}${/^[\w-]+$/.test(segment) ? segment : JSON.stringify(segment)}`;
  }
  return text;
}
