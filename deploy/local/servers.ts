/**
 * The servers Holdfast needs, run privately on this machine: each on loopback, with its data in a folder of its own,
 * as a handle that can be stopped, killed and started again.
 *
 *   find-servers.ts ──programs──▶ mosquitto.ts  nats.ts  redis.ts  postgres.ts ──▶ process.ts ──▶ Server
 */

export { type MosquittoOptions, startMosquitto } from './mosquitto.ts';
export { type NatsOptions, type NatsUser, startNats } from './nats.ts';
export { freePort } from './ports.ts';
export { type PostgresOptions, startPostgres } from './postgres.ts';
export { type RedisOptions, startRedis } from './redis.ts';
export { externalServer, type Server, type ServerName, serverNames, serverUrlVariables } from './server.ts';
