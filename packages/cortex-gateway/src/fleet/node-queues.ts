/** One lifecycle operation at a time per node: two loads must not race for the same memory. */
export class NodeQueues {
  readonly #tails = new Map<string, Promise<void>>();
  readonly #lengths = new Map<string, number>();

  /** Runs `work` after all that was queued for the node before; rejects as `work` does. */
  run(node: string, work: () => Promise<void>): Promise<void> {
    const tail = this.#tails.get(node) ?? Promise.resolve();
    this.#lengths.set(node, (this.#lengths.get(node) ?? 0) + 1);
    const result = tail.then(work);
    const next = result
      .catch(() => {})
      .then(() => {
        const left = (this.#lengths.get(node) ?? 1) - 1;
        if (left > 0) this.#lengths.set(node, left);
        else this.#lengths.delete(node);
      });
    this.#tails.set(node, next);
    return result;
  }

  /** Whether at most one operation is there, so the newest is the one that runs. */
  isHead(node: string): boolean {
    return (this.#lengths.get(node) ?? 0) <= 1;
  }
}
