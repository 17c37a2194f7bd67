/**
 * Sees the wall clock jump, pure. Time of arrival is wall-clock time; a box whose clock is set while it runs stamps what
 * comes before and after by two different clocks. Nothing breaks by that: order within a log is by sequence, and
 * each frame carries monotonic time too. But somebody has to be told.
 */
export interface ClockWatch {
  /** Compares the two clocks, in milliseconds. @returns by how much the wall clock has jumped since the last call, or 0 */
  check(wallMs: number, monotonicMs: number): number;
  readonly jumps: number;
  /** Of the last jump: positive is forwards. */
  readonly lastJumpMs: number;
}

/** A clock that is slewed stays below this from one check to the next; a clock that is set does not. */
const JUMP_MS = 3000;

export function newClockWatch(): ClockWatch {
  let offsetMs: number | null = null;
  let jumps = 0;
  let lastJumpMs = 0;
  return {
    check(wallMs, monotonicMs) {
      const before = offsetMs;
      offsetMs = wallMs - monotonicMs;
      if (before === null || Math.abs(offsetMs - before) < JUMP_MS) return 0;
      jumps++;
      lastJumpMs = Math.round(offsetMs - before);
      return lastJumpMs;
    },
    get jumps() {
      return jumps;
    },
    get lastJumpMs() {
      return lastJumpMs;
    },
  };
}
