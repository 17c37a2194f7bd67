/** Which files of an export were not among those that were imported, pure: another stick, or one that was pulled out. */

export interface PartSeen {
  readonly export: string;
  /** From 1. */
  readonly part: number;
  readonly last: boolean;
}

/** @returns a line for each export that is not whole */
export function missingParts(seen: readonly PartSeen[]): string[] {
  const lines: string[] = [];
  for (const [id, parts] of Map.groupBy(seen, entry => entry.export)) {
    const numbers = new Set(parts.map(({ part }) => part));
    const highest = Math.max(...numbers);
    const absent = Array.from({ length: highest }, (_, index) => index + 1).filter(
      part => !numbers.has(part),
    );
    if (absent.length > 0) lines.push(`Export ${id}: part ${absent.join(', ')} was not among the files.`);
    if (!parts.some(({ last }) => last)) {
      lines.push(
        `Export ${id}: it goes on after part ${highest}, or was stopped there; the rest is on another stick or still at the site.`,
      );
    }
  }
  return lines;
}
