/**
 * How a test file tells `run.ts` what happened: one JSON line per finished test. Loaded into the test's own process.
 */
import { inspect } from 'node:util';

/** What a test says with `diagnostic` and this before it is shown, though it passed. */
const NOTE = 'note: ';

/** One finished test of a file, or a note. */
export interface Finished {
  /** With the names of the tests around it. */
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'skipped' | 'noted';
  /** Why it was skipped, or how it failed. */
  readonly detail: string;
}

interface TestEvent {
  readonly type: string;
  readonly data: {
    readonly name: string;
    readonly message?: string;
    readonly nesting: number;
    readonly skip?: string | boolean;
    readonly todo?: string | boolean;
    readonly details?: {
      readonly type?: string;
      readonly error?: Error & { failureType?: string; cause?: unknown };
    };
  };
}

// Whoever runs out of time still ends through the 'exit' handlers, which take the servers along.
process.once('SIGTERM', () => process.exit(143));

export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const around: string[] = [];
  for await (const { type, data } of events) {
    if (type === 'test:start') {
      around.length = data.nesting;
      around.push(data.name);
    }
    if (type === 'test:diagnostic' && data.message?.startsWith(NOTE)) {
      const note: Finished = { name: data.message.slice(NOTE.length), outcome: 'noted', detail: '' };
      yield `${JSON.stringify(note)}\n`;
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const finished = finishedTest(type, data, [...around.slice(0, data.nesting), data.name].join(' › '));
    if (finished) yield `${JSON.stringify(finished)}\n`;
  }
}

function finishedTest(type: string, data: TestEvent['data'], name: string): Finished | null {
  const error = data.details?.error;
  if (type === 'test:fail' && !data.todo) {
    // The tests inside it have been reported.
    if (error?.failureType === 'subtestsFailed') return null;
    return { name, outcome: 'failed', detail: inspect(error?.cause ?? error) };
  }
  const reason = data.skip || data.todo;
  if (reason) {
    return { name, outcome: 'skipped', detail: reason === true ? 'no reason given' : String(reason) };
  }
  return data.details?.type === 'suite' ? null : { name, outcome: 'passed', detail: '' };
}
