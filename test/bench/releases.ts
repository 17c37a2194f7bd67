/** What was opened and has to be closed, last in, first out. */
export interface Releases {
  add(release: () => unknown): void;
  /** Closes what is open by now; again when called again, for what was opened meanwhile. */
  run(): Promise<void>;
}

export function newReleases(): Releases {
  const open: (() => unknown)[] = [];
  return {
    add: release => void open.push(release),
    async run() {
      for (let release = open.pop(); release; release = open.pop()) await release();
    },
  };
}
