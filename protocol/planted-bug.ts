/**
 * Bugs that can be planted on purpose, so that a checker can show that it would find them (`npm run chaos -- --bug NAME`).
 * Read here and nowhere else, once, and only in a process that is told to be a test build.
 */
export const plantedBugs = [
  // edge
  'puback-before-sync',
  'no-sync',
  'trim-on-puback',
  'reuse-log-id',
  'ignore-stream-identity',
  // cloud
  'skip-fence',
  'skip-ledger',
  'acknowledge-before-commit',
  'push-without-epoch',
] as const;
export type PlantedBug = (typeof plantedBugs)[number];

const wanted = process.env.HOLDFAST_TEST_BUILD === '1' ? process.env.HOLDFAST_TEST_BUG : undefined;

/** Whether this process shall have that bug. Never, outside a test build. */
export const hasBug = (bug: PlantedBug): boolean => wanted === bug;
