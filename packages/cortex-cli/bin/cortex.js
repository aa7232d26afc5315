#!/usr/bin/env node
import { ensureBuilt } from './build.js';
import { limitYoungGeneration } from './young-generation.js';

limitYoungGeneration();
await ensureBuilt();
await import('../dist/cortex-main.js');
