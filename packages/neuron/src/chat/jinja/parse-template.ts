/** Segments -> statements. */
import { type Segment, toSegments } from './lexer.ts';
import { ExpressionParser } from './parse-expression.ts';
import { type Block, JinjaError, type Parameter, type Statement, type Target } from './syntax.ts';

const depthMax = 100;

export function parseTemplate(source: string): Block {
  return new TemplateParser(toSegments(source)).whole();
}

interface OpenTag {
  readonly word: string;
  readonly parser: ExpressionParser;
  readonly line: number;
}

class TemplateParser {
  readonly #segments: readonly Segment[];
  #at = 0;
  #depth = 0;

  constructor(segments: readonly Segment[]) {
    this.#segments = segments;
  }

  whole(): Block {
    const { block, end } = this.#block(null, []);
    if (end !== null) throw new JinjaError(`unexpected "${end.word}"`, end.line);
    return block;
  }

  /** Up to a tag that is one of `ends`, which must come unless `opener` is null. */
  #block(opener: OpenTag | null, ends: readonly string[]): { block: Block; end: OpenTag | null } {
    if (++this.#depth > depthMax) throw new JinjaError('tags are nested too deeply', opener?.line ?? 0);
    const block: Statement[] = [];
    while (this.#at < this.#segments.length) {
      const segment = this.#segments[this.#at++];
      if (segment === undefined) break;
      if (segment.type === 'text') {
        block.push({ kind: 'text', text: segment.text });
        continue;
      }
      const parser = new ExpressionParser(segment.tokens, segment.line);
      if (segment.type === 'output') {
        block.push({ kind: 'output', value: parser.tuple(), line: segment.line });
        parser.expectEnd();
        continue;
      }
      const tag = { word: parser.takeName(), parser, line: segment.line };
      if (ends.includes(tag.word)) {
        this.#depth--;
        return { block, end: tag };
      }
      block.push(...this.#statement(tag));
    }
    this.#depth--;
    if (opener !== null) throw new JinjaError(`"${opener.word}" is not closed`, opener.line);
    return { block, end: null };
  }

  #body(opener: OpenTag, end: string): Block {
    const { block, end: tag } = this.#block(opener, [end]);
    if (end !== 'endmacro' && end !== 'endset') tag?.parser.expectEnd();
    return block;
  }

  #statement(tag: OpenTag): readonly Statement[] {
    const { parser, line } = tag;
    switch (tag.word) {
      case 'if':
        return [this.#if(tag)];
      case 'for':
        return [this.#for(tag)];
      case 'set':
        return [this.#set(tag)];
      case 'macro': {
        const name = parser.takeName();
        const parameters = this.#parameters(parser);
        return [{ kind: 'macro', name, parameters, body: this.#body(tag, 'endmacro') }];
      }
      case 'call': {
        const parameters = parser.peek()?.text === '(' ? this.#parameters(parser) : [];
        const call = parser.expression();
        parser.expectEnd();
        return [{ kind: 'call_block', call, parameters, body: this.#body(tag, 'endcall'), line }];
      }
      case 'filter': {
        const filter = parser.filters();
        parser.expectEnd();
        return [{ kind: 'filter_block', filter, body: this.#body(tag, 'endfilter'), line }];
      }
      case 'with':
        return [this.#with(tag)];
      case 'generation': // transformers' mark of what the assistant said; it changes nothing
        parser.expectEnd();
        return [{ kind: 'with', pairs: [], body: this.#body(tag, 'endgeneration') }];
      case 'do': {
        const value = parser.tuple();
        parser.expectEnd();
        return [{ kind: 'do', value, line }];
      }
      case 'break':
      case 'continue':
        parser.expectEnd();
        return [{ kind: tag.word }];
      default:
        throw new JinjaError(`the tag "${tag.word.slice(0, 40)}" is not known here`, line);
    }
  }

  #if(tag: OpenTag): Statement {
    const branches = [];
    let open = tag;
    for (;;) {
      const test = open.parser.tuple();
      open.parser.expectEnd();
      const { block, end } = this.#block(tag, ['elif', 'else', 'endif']);
      branches.push({ test, body: block, line: open.line });
      if (end?.word === 'elif') open = end;
      else {
        end?.parser.expectEnd();
        const otherwise = end?.word === 'else' ? this.#body(tag, 'endif') : [];
        return { kind: 'if', branches, otherwise };
      }
    }
  }

  #for(tag: OpenTag): Statement {
    const { parser, line } = tag;
    const target = parser.target();
    parser.expect('in', 'name');
    const iterable = parser.tuple(false);
    const filter = parser.take('if', 'name') ? parser.expression() : null;
    if (parser.take('recursive', 'name')) throw new JinjaError('recursive loops are not known here', line);
    parser.expectEnd();
    const { block, end } = this.#block(tag, ['else', 'endfor']);
    end?.parser.expectEnd();
    const otherwise = end?.word === 'else' ? this.#body(tag, 'endfor') : [];
    return { kind: 'for', target, iterable, filter, body: block, otherwise, line };
  }

  #set(tag: OpenTag): Statement {
    const { parser, line } = tag;
    const target = parser.target();
    if (parser.take('=')) {
      const value = parser.tuple();
      parser.expectEnd();
      return { kind: 'set', target, value, line };
    }
    const filter = parser.take('|') ? parser.filters() : null;
    parser.expectEnd();
    return { kind: 'set_block', target, body: this.#body(tag, 'endset'), filter, line };
  }

  #with(tag: OpenTag): Statement {
    const { parser } = tag;
    const pairs: (readonly [Target, ReturnType<ExpressionParser['expression']>])[] = [];
    while (parser.peek() !== undefined) {
      if (pairs.length > 0) parser.expect(',');
      const name = parser.takeName();
      parser.expect('=');
      pairs.push([{ kind: 'name', name }, parser.expression()]);
    }
    return { kind: 'with', pairs, body: this.#body(tag, 'endwith') };
  }

  #parameters(parser: ExpressionParser): readonly Parameter[] {
    const parameters: Parameter[] = [];
    parser.expect('(');
    for (let first = true; !parser.take(')'); first = false) {
      if (!first) parser.expect(',');
      if (parser.take(')')) break;
      const name = parser.takeName();
      parameters.push({ name, fallback: parser.take('=') ? parser.expression() : null });
    }
    return parameters;
  }
}
