import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import { Hub } from './hub.ts';

const revision = 'a'.repeat(40);
const files: Record<string, Buffer> = {
  'm-Q4_K_M.gguf': randomBytes(300_000),
  'm-Q8_0-00001-of-00002.gguf': randomBytes(1000),
  'm-Q8_0-00002-of-00002.gguf': randomBytes(2000),
  'README.md': Buffer.from('hello'),
};
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
/** Back-off without waiting. */
const clock: Clock = { ...systemClock, sleep: async () => {} };
const live = new AbortController().signal;

describe('Hub', () => {
  let server: Server;
  let endpoint: string;
  let cacheDir: string;
  let seen: { url: string; range: string | null; auth: string | null }[];
  let behave: {
    cutAt?: number;
    ignoreRange?: boolean;
    corrupt?: boolean;
    needKey?: boolean;
    /** Sends half of a file, says so, and goes on when it is told to. */
    stall?: { readonly reached: () => void; readonly go: Promise<void> };
    next?: string;
  };

  before(async () => {
    server = createServer(answer);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(() => new Promise((resolve) => server.close(resolve)));
  beforeEach(async (context) => {
    seen = [];
    behave = {};
    cacheDir = await mkdtemp(join(tmpdir(), 'hub-'));
    const made = cacheDir;
    if ('after' in context) context.after(() => rm(made, { recursive: true, force: true }));
  });

  function answer(request: IncomingMessage, response: ServerResponse): unknown {
    const url = request.url ?? '';
    const { range = null, authorization = null } = request.headers;
    seen.push({ url, range, auth: authorization });
    if (behave.needKey && authorization !== 'Bearer secret') return void response.writeHead(401).end();
    const json = (value: unknown): unknown => response.end(JSON.stringify(value));
    if (url === '/api/models/org/name/revision/main') return json({ sha: revision });
    if (url === '/api/models/org/empty/revision/main') return json({ sha: revision });
    if (url.startsWith('/api/models/org/empty/tree/')) return json([]);
    if (url.startsWith('/api/models/org/name/tree/')) {
      if (behave.next) response.setHeader('link', `<${behave.next}>; rel="next"`);
      return json(
        Object.entries(files).map(([path, bytes]) => {
          const lfs = path.endsWith('.gguf') ? { oid: sha256(bytes), size: bytes.length } : undefined;
          return { type: 'file', path, size: bytes.length, oid: 'b'.repeat(40), lfs };
        }),
      );
    }
    const resolve = `/org/name/resolve/${revision}/`;
    if (url.startsWith(resolve)) {
      return void response.writeHead(302, { location: `/cdn/${url.slice(resolve.length)}?sig=1` }).end();
    }
    const bytes = files[/^\/cdn\/([^?]+)/.exec(url)?.[1] ?? ''];
    if (bytes === undefined) return void response.writeHead(404).end();
    return sendFile(response, behave.corrupt ? Buffer.alloc(bytes.length, 1) : bytes, range);
  }

  function sendFile(response: ServerResponse, bytes: Buffer, range: string | null): void {
    const from = behave.ignoreRange ? 0 : Number(/^bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0);
    const body = bytes.subarray(from);
    const headers = {
      'content-length': body.length,
      'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
    };
    response.writeHead(from > 0 ? 206 : 200, headers);
    const { cutAt, stall } = behave;
    if (stall !== undefined) {
      delete behave.stall;
      response.write(body.subarray(0, body.length / 2), () => stall.reached());
      return void stall.go.then(() => response.end(body.subarray(body.length / 2)));
    }
    if (cutAt === undefined) return void response.end(body);
    delete behave.cutAt;
    response.write(body.subarray(0, cutAt), () => setImmediate(() => response.destroy()));
  }

  function hub(token: string | null = null): Hub {
    return new Hub({ endpoint, cacheDir, authEnv: 'HUB_KEY', token }, { fetch, clock });
  }

  async function refusal(promise: Promise<unknown>): Promise<AppError> {
    const error = await promise.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof AppError, String(error));
    return error;
  }

  it('fetches through a redirect into the cache layout, and then works offline', async () => {
    const progress: number[] = [];
    const model = await hub().fetchModel('org/name', 'q4_k_m', (done) => progress.push(done), live);
    const bytes = files['m-Q4_K_M.gguf'] ?? Buffer.alloc(0);
    assert.deepEqual(await readFile(model.files[0] ?? ''), bytes);
    assert.equal(model.digest, sha256(bytes));
    assert.equal(progress.at(-1), bytes.length);
    assert.deepEqual(await readdir(join(cacheDir, 'models--org--name', 'blobs')), [sha256(bytes)]);
    assert.equal(await readFile(join(cacheDir, 'models--org--name', 'refs', 'main'), 'utf8'), revision);
    const offline = new Hub(
      { endpoint: 'http://127.0.0.1:1', cacheDir, authEnv: null, token: null },
      { fetch, clock },
    );
    assert.deepEqual((await offline.fetchModel('org/name', 'Q4_K_M', () => {}, live)).files, model.files);
  });

  it('fetches all shards in order', async () => {
    const model = await hub().fetchModel('org/name', 'Q8_0', () => {}, live);
    assert.deepEqual(
      model.files.map((file) => file.slice(-14)),
      ['1-of-00002.gguf'.slice(-14), '2-of-00002.gguf'.slice(-14)],
    );
  });

  it('resumes where a connection was cut', async () => {
    behave.cutAt = 100_000;
    const model = await hub().fetchModel('org/name', 'Q4_K_M', () => {}, live);
    assert.equal(sha256(await readFile(model.files[0] ?? '')), model.digest);
    assert.ok(
      seen.some(({ range }) => range !== null && /^bytes=[1-9]\d*-$/.test(range)),
      JSON.stringify(seen),
    );
  });

  it('starts over when the server ignores Range', async () => {
    Object.assign(behave, { cutAt: 100_000, ignoreRange: true });
    const model = await hub().fetchModel('org/name', 'Q4_K_M', () => {}, live);
    assert.equal(sha256(await readFile(model.files[0] ?? '')), model.digest);
  });

  it('refuses and deletes a file with the wrong checksum', async () => {
    behave.corrupt = true;
    const error = await refusal(hub().fetchModel('org/name', 'Q4_K_M', () => {}, live));
    assert.equal(error.code, 'repo_fetch_failed');
    assert.match(error.message, /SHA-256/);
    assert.deepEqual(await readdir(join(cacheDir, 'models--org--name', 'blobs')), []);
  });

  it('names the variable for the token on 401, and sends it', async () => {
    behave.needKey = true;
    const error = await refusal(hub().fetchModel('org/name', null, () => {}, live));
    assert.equal(error.code, 'repo_fetch_failed');
    assert.match(error.message, /HUB_KEY/);
    await hub('secret').fetchModel('org/name', null, () => {}, live);
  });

  it('tells apart a missing repository, an empty one and a missing quantisation', async () => {
    const missing = await refusal(hub().fetchModel('org/missing', null, () => {}, live));
    assert.match(missing.message, /no such repository/);
    assert.equal((await refusal(hub().fetchModel('org/empty', null, () => {}, live))).code, 'empty_repo');
    const quant = await refusal(hub().fetchModel('org/name', 'Q4_K_S', () => {}, live));
    assert.equal(quant.code, 'quant_not_found');
    assert.deepEqual(quant.extras, {
      model_id: 'org/name',
      requested: 'Q4_K_S',
      available: ['Q4_K_M', 'Q8_0'],
      nearest: 'Q4_K_M',
    });
  });

  it('stops when it is cancelled and keeps what it has', async () => {
    const stop = new AbortController();
    const running = hub().fetchModel(
      'org/name',
      'Q4_K_M',
      () => stop.abort(new Error('enough')),
      stop.signal,
    );
    await assert.rejects(running, /enough/);
    const left = await readdir(join(cacheDir, 'models--org--name', 'blobs'));
    assert.ok(left.length <= 1 && left.every((name) => name.endsWith('.incomplete')), left.join());
  });

  it('says so when the disk is full, and goes on from there when it is not', {
    skip: existsSync('/dev/full') ? false : 'no /dev/full here',
  }, async () => {
    const blobs = join(cacheDir, 'models--org--name', 'blobs');
    const partial = join(blobs, `${sha256(files['m-Q4_K_M.gguf'] ?? Buffer.alloc(0))}.incomplete`);
    await mkdir(blobs, { recursive: true });
    await symlink('/dev/full', partial); // every write to it fails with ENOSPC
    const error = await refusal(hub().fetchModel('org/name', 'Q4_K_M', () => {}, live));
    assert.equal(error.code, 'disk_full');
    assert.equal(error.message, 'no space left for org/name/m-Q4_K_M.gguf (1 MiB); free some and load again');
    assert.equal(seen.filter(({ url }) => url.startsWith('/cdn/')).length, 1, 'it was tried again in vain');
    assert.equal(existsSync(join(cacheDir, 'models--org--name', 'snapshots')), false);
    await rm(partial);
    const model = await hub().fetchModel('org/name', 'Q4_K_M', () => {}, live);
    assert.equal(sha256(await readFile(model.files[0] ?? '')), model.digest);
  });

  it('lets the second of two loads of one file go on when the first is given up', async () => {
    let reached: () => void = () => {};
    let go: () => void = () => {};
    const halfway = new Promise<void>((resolve) => {
      reached = resolve;
    });
    behave.stall = {
      reached,
      go: new Promise<void>((resolve) => {
        go = resolve;
      }),
    };
    // Between the list and the download nothing waits for I/O: a turn later each has come to the file.
    const turns: Promise<void>[] = [];
    const noting: typeof fetch = async (url, options) => {
      const response = await fetch(url, options);
      if (!String(url).includes('/tree/')) return response;
      const value: unknown = await response.json();
      turns.push(new Promise((resolve) => void setImmediate(resolve)));
      return Response.json(value);
    };
    const one = new Hub({ endpoint, cacheDir, authEnv: null, token: null }, { fetch: noting, clock });
    const first = new AbortController();
    const third = new AbortController();
    const given = one.fetchModel('org/name', 'Q4_K_M', () => {}, first.signal);
    given.catch(() => {});
    await halfway;
    const second = one.fetchModel('org/name', 'Q4_K_M', () => {}, live);
    const left = one.fetchModel('org/name', 'Q4_K_M', () => {}, third.signal);
    left.catch(() => {});
    second.catch(() => {});
    while (turns.length < 3) await new Promise((resolve) => setImmediate(resolve));
    await Promise.all(turns);
    await new Promise((resolve) => setImmediate(resolve));
    third.abort(new Error('changed my mind'));
    await assert.rejects(left, /changed my mind/);
    first.abort(new Error('the load was cancelled'));
    await assert.rejects(given, /the load was cancelled/);
    const model = await second;
    go();
    assert.equal(sha256(await readFile(model.files[0] ?? '')), model.digest);
  });

  it('fetches again what is only a link to a deleted blob', async () => {
    const before = await hub().fetchModel('org/name', 'Q4_K_M', () => {}, live);
    await rm(join(cacheDir, 'models--org--name', 'blobs'), { recursive: true });
    const after = await hub().fetchModel('org/name', 'Q4_K_M', () => {}, live);
    assert.deepEqual(after.files, before.files);
    assert.equal(sha256(await readFile(after.files[0] ?? '')), after.digest);
  });

  it('takes the token to no other server for the next page of a list', async () => {
    const strangers: string[] = [];
    const ask: typeof fetch = (url, options) => {
      if (!String(url).startsWith(`${endpoint}/`)) strangers.push(String(url));
      return fetch(url, options);
    };
    behave.next = `${endpoint}0.example/api/models/org/name/tree/x?page=2`;
    const careful = new Hub({ endpoint, cacheDir, authEnv: null, token: 'secret' }, { fetch: ask, clock });
    await careful.fetchModel('org/name', 'Q4_K_M', () => {}, live);
    assert.deepEqual(strangers, []);
  });

  it('does not take a path for a repository', async () => {
    for (const name of ['../etc', 'a/..', 'org/na me', '/abs/path']) {
      assert.equal((await refusal(hub().fetchModel(name, null, () => {}, live))).code, 'model_not_found');
    }
    assert.equal(seen.length, 0);
  });
});
