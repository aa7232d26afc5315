/** `cortex clients`: what to write into which client, with this gateway's address and a model that it has. */
import { CliError } from '../cli-error.ts';
import { type GatewayAddress, GatewayClient } from '../gateway-client.ts';
import type { Style } from '../style.ts';
import type { Terminal } from '../terminal.ts';
import { type ChosenModel, chooseModel } from './chosen-model.ts';
import { type ClientRecipe, KEY_PLACEHOLDER, type RecipeInput } from './client-recipe.ts';
import { recipes } from './recipes.ts';

export interface ClientsOptions extends GatewayAddress {
  readonly model?: string;
  readonly json?: boolean;
}

export async function showClients(
  terminal: Terminal,
  name: string | undefined,
  options: ClientsOptions,
  signal: AbortSignal,
): Promise<void> {
  const shown = name === undefined ? recipes : [findRecipe(name)];
  const client = new GatewayClient(options);
  const model = await chooseModel(client, options.model, signal);
  // the key itself would end up in a scrollback, a screenshot or a pipe
  const apiKey = options.apiKey === undefined || options.apiKey === '' ? KEY_PLACEHOLDER : '<your key>';
  const input = toRecipeInput(client.endpoint, model, apiKey);
  terminal.stdout.write(
    options.json === true
      ? `${JSON.stringify({ ...input, clients: shown.map((recipe) => toJson(recipe, input)) })}\n`
      : shown.map((recipe) => renderRecipe(recipe, input, terminal.style)).join('\n'),
  );
}

export function toRecipeInput(endpoint: string, model: ChosenModel, apiKey: string): RecipeInput {
  return { url: endpoint, model: model.id, context: model.context, output: model.output, apiKey };
}

function findRecipe(name: string): ClientRecipe {
  const found = recipes.find((recipe) => recipe.name === name);
  if (found !== undefined) return found;
  const names = recipes.map((recipe) => recipe.name).join(', ');
  throw new CliError(`there is no recipe for "${name}"; there is one for ${names}`, 2);
}

function toJson(recipe: ClientRecipe, input: RecipeInput): object {
  const { name, title, speaks, tried, notes, snippets } = recipe;
  return { name, title, speaks, tried, notes, snippets: snippets(input) };
}

function renderRecipe(recipe: ClientRecipe, input: RecipeInput, style: Style): string {
  const head = `${style.bold(recipe.title)} ${style.dim(`(${recipe.name}; ${recipe.speaks})`)}`;
  const snippets = recipe.snippets(input).map(({ into, text }) => {
    const indented = text.replaceAll(/^(?=.)/gm, '    ');
    return `  ${into === 'shell' ? 'in a shell' : into}:\n${indented}\n`;
  });
  const launch = recipe.launch === undefined ? [] : [`  or: cortex launch ${recipe.name}\n`];
  const notes = [...recipe.notes, style.dim(recipe.tried)].map((note) => `  ${note}\n`);
  return [`${head}\n`, ...snippets, ...launch, ...notes].join('');
}
