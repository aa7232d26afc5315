/** What may stand after `is`. */
import { compare, contains, equals, Float, isDict, type Kwargs, numberOf } from './values.ts';

export type Test = (input: unknown, args: readonly unknown[], kwargs: Kwargs) => boolean;

export function testOf(name: string): Test | undefined {
  return tests.get(name);
}

const isNumber: Test = (input) => typeof input !== 'boolean' && numberOf(input) !== null;
const isFloat: Test = (input) =>
  input instanceof Float || (isNumber(input, [], new Map()) && !Number.isInteger(input));
const isEqual: Test = (input, args) => equals(input, args[0]);
const isBelow: Test = (input, args) => compare(input, args[0]) < 0;
const isAbove: Test = (input, args) => compare(input, args[0]) > 0;
const isIterable: Test = (input) => {
  return input === undefined || typeof input === 'string' || Array.isArray(input) || isDict(input);
};

const tests: ReadonlyMap<string, Test> = new Map<string, Test>([
  ['defined', (input) => input !== undefined],
  ['undefined', (input) => input === undefined],
  ['none', (input) => input === null],
  ['string', (input) => typeof input === 'string'],
  ['number', isNumber],
  ['integer', (input) => typeof input === 'number' && Number.isInteger(input)],
  ['float', isFloat],
  ['boolean', (input) => typeof input === 'boolean'],
  ['true', (input) => input === true],
  ['false', (input) => input === false],
  ['mapping', (input) => isDict(input)],
  ['iterable', isIterable],
  ['sequence', isIterable],
  ['callable', (input) => typeof input === 'function'],
  ['sameas', (input, args) => Object.is(input, args[0])],
  ['eq', isEqual],
  ['equalto', isEqual],
  ['==', isEqual],
  ['ne', (input, args) => !equals(input, args[0])],
  ['!=', (input, args) => !equals(input, args[0])],
  ['lt', isBelow],
  ['lessthan', isBelow],
  ['<', isBelow],
  ['gt', isAbove],
  ['greaterthan', isAbove],
  ['>', isAbove],
  ['le', (input, args) => compare(input, args[0]) <= 0],
  ['<=', (input, args) => compare(input, args[0]) <= 0],
  ['ge', (input, args) => compare(input, args[0]) >= 0],
  ['>=', (input, args) => compare(input, args[0]) >= 0],
  ['in', (input, args) => contains(args[0], input)],
  ['odd', (input) => Math.abs(numberOf(input) ?? 0) % 2 === 1],
  ['even', (input) => (numberOf(input) ?? 1) % 2 === 0],
  ['divisibleby', (input, args) => (numberOf(input) ?? 1) % (numberOf(args[0]) ?? 0) === 0],
  [
    'upper',
    (input) => typeof input === 'string' && input === input.toUpperCase() && input !== input.toLowerCase(),
  ],
  [
    'lower',
    (input) => typeof input === 'string' && input === input.toLowerCase() && input !== input.toUpperCase(),
  ],
]);
