/** An owner of partition 0 that delivers, to be killed: PostgreSQL's and NATS's URL as arguments; says `ready` on stdout. */
import { connect } from '@nats-io/transport-node';
import pg from 'pg';
import { pino } from 'pino';
import { claimPartitions } from '../../../cloud/cluster/leases.ts';
import { openDelivery } from '../../../cloud/incidents/delivery.ts';
import { natsAddress } from '../../../protocol/nats-address.ts';

const [postgresUrl = '', natsUrl = ''] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: postgresUrl });
const nats = await connect(natsAddress(natsUrl));
const [claim] = await claimPartitions(pool, 'test', [0], 1);
const owned = [{ id: 0, epoch: claim!.epoch }];
const delivery = openDelivery({
  pool,
  nats,
  logger: pino({ level: 'silent' }),
  owned: () => owned,
  allowPrivate: true,
});
await delivery.workOff();
process.stdout.write('ready\n');
