/** A process that writes to the buffer in `argv[2]` until it is killed, and says on stdout what is durable. */
import { openDiskBuffer } from '../../../edge-gateway/log/disk-buffer.ts';
import { message, silent } from './support.ts';

const [, , directory = '', count = 'Infinity', firstId = '1'] = process.argv;
const opened = await openDiskBuffer({
  directory,
  bytesMax: 2 ** 30,
  segmentBytesMax: 100_000,
  bootId: 'boot',
  logger: silent,
});
if (opened.outcome === 'unusable') {
  process.stdout.write(`unusable ${opened.reason}\n`);
} else {
  const { buffer } = opened;
  process.stdout.write(`open ${buffer.current}\n`);
  let id = Number(firstId);
  let waiting = 0;
  const more = (): void => {
    for (; waiting < 200 && id < Number(firstId) + Number(count); id++, waiting++) {
      const mine = id;
      buffer.append(message(mine, mine % 400), () => {
        waiting--;
        process.stdout.write(`durable ${mine}\n`);
      });
    }
  };
  buffer.onDurable(more);
  more();
  // Holds the buffer until it is killed.
  setInterval(() => undefined, 60_000);
}
