/** Figures as people read them. */

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));

/** The first row is the head; the first column is text, the others are aligned to the right. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const cells = rows.map(row =>
    row.map(cell =>
      typeof cell === 'number' ? cell.toLocaleString('en', { maximumFractionDigits: 3 }) : cell,
    ),
  );
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map(row => row[column]!.length)));
  const lines = cells.map(row =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  '),
  );
  lines.splice(1, 0, widths.map(width => '─'.repeat(width)).join('  '));
  return lines.join('\n');
}
