/**
 * A process that stores telemetry in the buffer in `argv[2]` until it is killed, while its thread compacts and thins what is
 * there. Says on stdout what is durable, and what became of segments.
 */
import { startCompactor } from '../../../edge-gateway/log/compactor.ts';
import { NO_MAPPING } from '../../../edge-gateway/mapping/mapping-file.ts';
import { openCompacting, THINNED, telemetry } from './compacting.ts';

const [, , directory = ''] = process.argv;
const now = await openCompacting(directory, {
  bytesMax: 60_000,
  segmentBytesMax: 8_000,
  nearFull: 'thin',
  compactor: startCompactor(NO_MAPPING),
});
const { buffer } = now;
process.stdout.write(`open ${buffer.current}\n`);
void (async () => {
  for (;;) {
    await now.logged(THINNED);
    process.stdout.write('thinned\n');
  }
})();
let sequence = 1;
let waiting = 0;
const more = (): void => {
  while (waiting < 100) {
    const mine = sequence;
    const taken = buffer.append(telemetry(mine % 5, Math.floor(mine / 5)), () => {
      waiting--;
      process.stdout.write(`durable ${mine}\n`);
    });
    if (taken === 'full') return;
    sequence++;
    waiting++;
  }
};
buffer.onDurable(more);
buffer.onSpace(more);
more();
