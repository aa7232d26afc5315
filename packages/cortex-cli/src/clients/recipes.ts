/** Every client that has a recipe, in the order in which they are shown. */
import { claudeRecipe, codexRecipe, opencodeRecipe } from './agent-recipes.ts';
import type { ClientRecipe } from './client-recipe.ts';
import { sdkRecipes } from './sdk-recipes.ts';
import { toolRecipes } from './tool-recipes.ts';

export const recipes: readonly ClientRecipe[] = [
  claudeRecipe,
  codexRecipe,
  opencodeRecipe,
  ...toolRecipes,
  ...sdkRecipes,
];
