/** The `cortex` executable. */
import { createProgram } from './program.ts';
import { runProgram } from './program-runner.ts';
import { createTerminal } from './terminal.ts';

const terminal = createTerminal();
await runProgram(createProgram(terminal), 'cortex', terminal);
