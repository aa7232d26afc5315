/**
 * Source text as tokens, and the functions among them: enough of TypeScript for the house rules in tidy.mjs.
 *
 * Limits: no syntax tree. A slash opens a regular expression when the token before it cannot end a value.
 */

const tokenPattern = new RegExp(
  [
    /(?<space>\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/|^#![^\n]*)/.source,
    /(?<word>[\p{ID_Start}$_#@][\p{ID_Continue}$]*)/u.source,
    /(?<number>\d[\w.]*)/.source,
    /(?<string>'(?:\\[\s\S]|[^'\\\n])*'|"(?:\\[\s\S]|[^"\\\n])*")/.source,
    /(?<punctuation>=>|[\s\S])/.source,
  ].join('|'),
  'yu',
);
const regexPattern = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y;
const beforeRegex =
  /^(return|typeof|case|in|of|void|delete|throw|new|else|do|await|yield|=>|[=([{},;:!&|?+*%~^<>-])$/;

/** Words, numbers, strings and punctuation with their lines; the code inside `${}` of a template too. */
export function toTokens(text) {
  const tokens = [];
  const templates = []; // one brace depth for each template whose ${ is open
  let [at, line, depth] = [0, 1, 0];
  const push = (kind, length) => {
    const piece = text.slice(at, at + length);
    if (kind !== 'space') tokens.push({ kind, text: piece, line });
    line += piece.split('\n').length - 1;
    at += length;
  };
  while (at < text.length) {
    const last = tokens.at(-1);
    const closesHole = text[at] === '}' && templates.at(-1) === depth;
    if (text[at] === '`' || closesHole) {
      if (closesHole) templates.pop();
      const length = toTemplateEnd(text, at + 1) - at;
      if (text[at + length - 1] === '{') templates.push(depth);
      push('template', length);
      continue;
    }
    const isComment = text[at + 1] === '/' || text[at + 1] === '*';
    if (text[at] === '/' && !isComment && (last === undefined || beforeRegex.test(last.text))) {
      regexPattern.lastIndex = at;
      const match = regexPattern.exec(text);
      if (match) {
        push('regex', match[0].length);
        continue;
      }
    }
    tokenPattern.lastIndex = at;
    const { groups, 0: piece } = tokenPattern.exec(text);
    if (piece === '{') depth++;
    if (piece === '}') depth--;
    push(Object.keys(groups).find((name) => groups[name] !== undefined) ?? 'punctuation', piece.length);
  }
  return tokens;
}

/** Past the end of a template's text: behind its closing backtick, or behind the `${` that opens a hole. */
function toTemplateEnd(text, from) {
  for (let at = from; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '`') return at + 1;
    else if (text[at] === '$' && text[at + 1] === '{') return at + 2;
  }
  return text.length;
}

/** Start and end line of every function with a braced body and every arrow that returns a `(...)`. */
export function toFunctions(tokens) {
  const partner = toPartners(tokens);
  return tokens.flatMap(({ text, kind }, i) => {
    if (kind !== 'punctuation' || !partner.has(i) || (text !== '{' && text !== '(')) return [];
    const head = toHead(tokens, partner, i);
    return head === undefined ? [] : [{ start: tokens[head].line, end: tokens[partner.get(i)].line }];
  });
}

/** The token where the function whose body opens at `i` begins; undefined for any other bracket. */
function toHead(tokens, partner, i) {
  const isParen = (at) => tokens[at]?.text === ')' && partner.has(at);
  let at = i - 1;
  if (tokens[at]?.text === '=>') return isParen(at - 1) ? partner.get(at - 1) : at;
  const mayEndType = tokens[at]?.kind !== 'punctuation' || /^[)>\]}]$/.test(tokens[at].text);
  if (tokens[i].text === '(' || !mayEndType) return undefined;
  // Walk back over a return type, as far as the colon after the parameters.
  const keywords =
    /^(do|else|try|finally|return|class|interface|extends|implements|switch|type|default|case)$/;
  for (let seen = 0; seen < 200 && !isParen(at); seen++) {
    const token = tokens[at];
    if (token === undefined || /^[;=({[]$/.test(token.text) || keywords.test(token.text)) return undefined;
    if (token.text === ':') {
      if (!isParen(at - 1)) return undefined;
      at -= 1;
      break;
    }
    at = partner.has(at) ? partner.get(at) - 1 : at - 1;
  }
  if (!isParen(at)) return undefined;
  const open = partner.get(at);
  return /^(if|for|while|switch|catch|with|await)$/.test(tokens[open - 1]?.text ?? '') ? undefined : open;
}

function toPartners(tokens) {
  const partner = new Map();
  const open = [];
  tokens.forEach(({ text, kind }, i) => {
    if (kind !== 'punctuation') return;
    if (text === '(' || text === '[' || text === '{') open.push(i);
    if (text !== ')' && text !== ']' && text !== '}') return;
    const start = open.pop();
    if (start === undefined) return;
    partner.set(start, i);
    partner.set(i, start);
  });
  return partner;
}
