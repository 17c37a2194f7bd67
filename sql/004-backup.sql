-- Backups by pg_dump, and what of the ledger they cover: gateways give back settled segments before their time once a
-- confirmed backup has them (A, R).
--
--   begun (what is settled now is noted) ─▶ pg_dump ─▶ confirmed (it is covered)
--     └─ forgotten: a later one was confirmed, or ten later ones were begun (F)

set local search_path = holdfast, public;

create table backup (
  -- The time it was begun as a number, by UTC: 20260131235959. A database that was restored to an earlier hour gives none
  -- of them a second time, so none is ever taken for another.
  id           bigint primary key,
  begun_at     timestamptz not null default clock_timestamp(),
  confirmed_at timestamptz
);

-- What was settled when the backup was begun and in no confirmed one; nothing once it is confirmed.
create table backup_log (
  backup  bigint not null references backup on delete cascade,
  log     int not null references gateway_log on delete cascade,
  settled int8multirange not null,
  primary key (backup, log)
);

-- The part of `settled` that a confirmed backup has.
alter table gateway_log add covered int8multirange not null default '{}';

-- As in 001, and another one in a database that was restored under a running server: its tables are other ones, and so
-- are the numbers of its logs and devices (B).
create or replace function server_started() returns text language sql stable as
  $$ select extract(epoch from pg_postmaster_start_time()) || '/' || 'holdfast.gateway_log'::regclass::oid $$;
