/** The loads of a fake neuron: one per model, whoever comes later attaches, and each can be cancelled. */
export interface Refusal {
  readonly status: number;
  readonly body: unknown;
}

type Outcome = Refusal | undefined;

interface Load {
  readonly outcome: Promise<Outcome>;
  readonly cancel: () => void;
}

export class FakeLoads {
  readonly #loads = new Map<string, Load>();

  /** The outcome of the load that runs, or of `work`; undefined = it is loaded. */
  run(id: string, work: () => Promise<Outcome> | Outcome): Promise<Outcome> {
    const running = this.#loads.get(id);
    if (running !== undefined) return running.outcome;
    let cancel = (): void => {};
    const cancelled = new Promise<Refusal>((resolve) => {
      const body = { error: `the load of '${id}' was cancelled`, code: 'load_cancelled' };
      cancel = () => resolve({ status: 409, body });
    });
    const outcome = Promise.race([Promise.resolve().then(work), cancelled]);
    this.#loads.set(id, { outcome, cancel });
    const forget = (): void => void this.#loads.delete(id);
    outcome.then(forget, forget);
    return outcome;
  }

  /** False when that model is not loading. */
  cancel(id: string): boolean {
    const load = this.#loads.get(id);
    load?.cancel();
    return load !== undefined;
  }
}
