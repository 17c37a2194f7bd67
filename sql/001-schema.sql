-- Holdfast's schema, whole. Read it top to bottom: who owns what, how far each stream is settled, the dictionaries,
-- history, then twins and incidents. Letters are the invariants of docs/invariants.md.

create schema holdfast;
set local search_path = holdfast, public;

-- This history's own id: a gateway that meets another one knows that the database was replaced.
create table history (
  id         uuid primary key default gen_random_uuid(),
  partitions int not null check (partitions between 1 and 1024),
  created_at timestamptz not null default now(),
  only_row   boolean not null default true unique check (only_row)
);

-- Cloud nodes, one row per run of one. A node whose heartbeat is older than the lease is dead.
create table node (
  id           text primary key,
  name         text not null,
  -- Whether it takes partitions.
  actors       boolean not null,
  draining     boolean not null default false,
  started_at   timestamptz not null default clock_timestamp(),
  heartbeat_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- Ownership (D). A partition's epoch only grows; nothing written under an old one takes effect. The owner is a node's id;
-- null when it was handed over and nobody has claimed it yet.
create table partition (
  id         int primary key,
  epoch      bigint not null default 0,
  owner      text,
  claimed_at timestamptz
);

-- How far history has read each lane of the stream. `stream_created` is the stream's identity: under another one
-- the position means nothing and reading starts at the first message.
create table stream_cursor (
  partition       int not null references partition,
  lane            text not null,
  stream_created  text not null,
  stream_sequence bigint not null,
  primary key (partition, lane)
);

-- The ledger (A, B): per log of a gateway, the sequences that history has settled in whatever way. It is the
-- deduplication: a range enters once, in the transaction that writes its rows.
create table gateway_log (
  id          int generated always as identity primary key,
  site        text not null,
  gateway     text not null,
  log_id      text not null,
  settled     int8multirange not null default '{}',
  -- One past the newest message that was ever on the gateway's disk, as its hellos said: what lies in [1, ends) and is
  -- not settled is missing. Null until a hello named the log.
  ends        bigint,
  seen_at     timestamptz,
  -- Settled messages that did not come live and whole, each counted once, by the worst that happened to it.
  late        bigint not null default 0,
  thinned     bigint not null default 0,
  lost        bigint not null default 0,
  quarantined bigint not null default 0,
  expired     bigint not null default 0,
  created_at  timestamptz not null default now(),
  unique (site, gateway, log_id)
) with (fillfactor = 60);

-- What was settled other than as plain rows, so that nothing is dropped in silence (F, H, I).
create table ledger_mark (
  log       int not null references gateway_log,
  range     int8range not null,
  status    text not null check (status in ('quarantined', 'expired', 'lost', 'thinned')),
  -- How many messages of the range it concerns: in a thinned run some were kept as they were.
  messages  bigint not null,
  reason    text not null,
  noted_at  timestamptz not null default now(),
  primary key (log, range, status)
);

-- The ledger by time, for charts: messages per minute of arrival at the gateway. What came live and whole is not in it,
-- so it stays small. A row with 0 messages lies within a run that was settled as one.
create table ledger_minute (
  log      int not null references gateway_log,
  minute   timestamptz not null,
  status   text not null check (status in ('late', 'thinned', 'lost', 'quarantined', 'expired')),
  messages bigint not null,
  primary key (log, minute, status)
);

-- What each gateway said last, so that one that has gone silent stays on the page after a cloud node's restart.
create table gateway (
  site          text not null,
  name          text not null,
  last_hello_at timestamptz not null,
  report        jsonb not null,
  primary key (site, name)
) with (fillfactor = 60);

-- Dictionaries: short numbers for names that repeat in every row.
create table device (
  id   int generated always as identity primary key,
  site text not null,
  name text not null,
  unique (site, name)
);

-- The set of metrics that one message carries. Numbers come first, then booleans, then strings.
create table shape (
  id        int generated always as identity primary key,
  -- SHA-256 of the names by type: the names themselves may be too long for an index.
  signature text not null unique
);
create table shape_metric (
  shape    int not null references shape on delete cascade,
  name     text not null,
  type     "char" not null check (type in ('n', 'b', 's')),
  -- Index into message.numbers (n, b) or message.texts (s), from 1.
  position int not null,
  primary key (shape, type, position)
);
create index shape_metric_name on shape_metric (name);

-- History: one row per message element, partitioned by the day of `at`.
create table message (
  at         timestamptz not null,
  sequence   bigint not null,
  log        int not null,
  device     int not null,
  shape      int not null,
  element    smallint not null,
  -- 0 telemetry, 1 event, 2 status, 3 location.
  kind       smallint not null,
  numbers    float8[],
  texts      text[],
  -- The device's own time where it was too far ahead to be believed and `at` is the time of arrival.
  claimed_at timestamptz
) partition by range (at);
create index message_device_at on message (device, at);

-- Days around now are created ahead of time, others as their data arrives: a replayed recording may be months old.
-- A table made apart and attached leaves `message` open to readers and writers (PARTITION OF would wait for every open
-- query, and all others behind it). Whatever still is in the way is not waited for long: the caller tries again (R).
create function ensure_day(day date) returns void language plpgsql set lock_timeout = '5s' as $$
declare
  name text := format('message_%s', to_char(day, 'YYYYMMDD'));
begin
  if to_regclass('holdfast.' || name) is not null then return; end if;
  -- Two writers may meet the same new day; the lock makes the second one wait and find it there. It asks the table of
  -- tables itself: to_regclass may answer from a cache that an advisory lock does not bring up to date.
  perform pg_advisory_xact_lock(hashtext('holdfast.ensure_day'));
  if exists (select from pg_class where relname = name and relnamespace = 'holdfast'::regnamespace) then return; end if;
  -- In UTC, whatever the session's time zone: `at` of a reading near midnight must fall into the day it was asked for.
  execute format('create table holdfast.%I (like holdfast.message including all)', name);
  execute format('alter table holdfast.message attach partition holdfast.%I for values from (%L) to (%L)',
    name, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
end $$;

-- History as people and Grafana read it: one row per reading.
create view reading as
  select d.site, d.name as device, m.name as metric, r.at as time,
         case when m.type <> 's' then r.numbers[m.position] end as value,
         case when m.type = 's' then r.texts[m.position] end as text,
         case when m.type = 'b' then r.numbers[m.position] <> 0 end as truth,
         (array['telemetry', 'event', 'status', 'location'])[r.kind + 1] as kind,
         r.claimed_at, r.device as device_id, r.log, r.sequence, r.element
    from message r
    join device d on d.id = r.device
    join shape_metric m on m.shape = r.shape;

create table metric (
  id   int generated always as identity primary key,
  name text not null unique
);

-- Numbers of readings that a gateway had no room for: one row per device, metric, interval and thinned run. `sequence`
-- is the run's first, so the key makes a second copy impossible (B).
create table summary (
  at          timestamptz not null,
  sequence    bigint not null,
  log         int not null,
  device      int not null,
  metric      int not null,
  interval_ms int not null,
  minimum     float8 not null,
  maximum     float8 not null,
  mean        float8 not null,
  count       bigint not null,
  primary key (device, metric, at, interval_ms, log, sequence)
);

-- Means are added up in numeric, where no device's value can overflow the sum. The way there rounds to 15 digits, for the largest
-- numbers beyond what comes back.
create function as_float8(n numeric) returns float8 language sql immutable parallel safe as
  $$ select least(greatest(n, -1.797693134862315e308), 1.797693134862315e308)::float8 $$;

-- Summaries as people and Grafana read them. Runs that share an interval are about different readings: they are one row.
create view thinned_reading as
  select d.site, d.name as device, m.name as metric, s.at as time,
         make_interval(secs => s.interval_ms / 1000.0) as interval,
         min(s.minimum) as minimum, max(s.maximum) as maximum,
         as_float8(sum(s.mean::numeric * s.count) / sum(s.count)) as mean, sum(s.count)::bigint as count
    from summary s
    join device d on d.id = s.device
    join metric m on m.id = s.metric
   group by d.site, d.name, m.name, s.at, s.interval_ms;

-- Bad messages, kept for a person to look at (H). Their ranges are settled; this table is bounded by the writer.
create table quarantine (
  id            bigint generated always as identity primary key,
  site          text not null,
  gateway       text not null,
  log           int references gateway_log,
  sequence      bigint,
  received_at   timestamptz not null,
  reason        text not null,
  topic         text not null,
  payload_bytes int not null,
  payload       bytea not null,
  -- When its rows went into history after all; they are in the ledger as late from then on.
  replayed_at   timestamptz,
  -- What the twins have yet to be told of a replay, as a batch; null once it is in the stream.
  twin_batch    bytea
);
create index quarantine_site on quarantine (site, id desc);
create index quarantine_untold on quarantine (id) where twin_batch is not null;

-- The registry: what people know of devices, beside what the devices say themselves. Read by every cloud node, a site at
-- a time, when its revision has moved.
create table device_type (
  id          text primary key,
  description text not null default '',
  -- By metric: {unit, reported}; history and twins hold `unit`, the devices send `reported`.
  metrics     jsonb not null default '{}',
  changed_at  timestamptz not null default now()
);

-- The revision moves with every change of the site's entries; that of the types with every change of a type.
create table registry_site (
  site            text primary key,
  -- What becomes of readings of devices that have no entry.
  unknown_devices text not null default 'admit' check (unknown_devices in ('admit', 'quarantine')),
  revision        bigint not null default 1
);
create table registry_types_revision (
  revision bigint not null default 1,
  only_row boolean not null default true unique check (only_row)
);
insert into registry_types_revision default values;

create table registry_device (
  site         text not null,
  device       text not null,
  display_name text,
  type         text references device_type,
  tags         text[] not null default '{}',
  groups       text[] not null default '{}',
  metadata     jsonb not null default '{}',
  -- Retired: hidden from lists and without absences; its history stays.
  retired      boolean not null default false,
  changed_at   timestamptz not null default now(),
  primary key (site, device)
);
create index registry_device_type on registry_device (type);

-- Names that devices use (hardware that took another one's place) or used (before a rename), and the device they stand for.
create table device_alias (
  site       text not null,
  alias      text not null,
  device     text not null,
  changed_at timestamptz not null default now(),
  primary key (site, alias)
);
create index device_alias_device on device_alias (site, device);

create function touch_registry(p_site text) returns void language sql as $$
  insert into holdfast.registry_site as s (site) values (p_site)
  on conflict (site) do update set revision = s.revision + 1
$$;

-- The twins' state as of the last settled message (C): written in the transaction that settles it.
create table twin (
  site    text not null,
  device  text not null,
  version bigint not null,
  state   text not null,
  primary key (site, device)
) with (fillfactor = 60);

-- Alert rules (docs/rules.md says what each field means). Which fields a kind has, and what makes sense, is for
-- cloud/rule-model.ts: a row that makes none is set aside with its reason.
create table rule (
  id          text primary key,
  kind        text not null default 'threshold' check (kind in ('threshold', 'range', 'rate', 'absence', 'anomaly')),
  metric      text,
  -- threshold
  comparison  text,
  -- threshold, rate
  threshold   float8,
  -- range
  low         float8,
  high        float8,
  -- rate
  direction   text,
  per_ms      int,
  -- anomaly: deviations, readings that count, readings before it speaks, the least deviation that is believed
  deviations  float8,
  readings    int,
  warmup      int,
  floor       float8,
  -- How long it must hold; of an absence the silence.
  for_ms      bigint,
  -- The value must come back by this much before the incident clears.
  hysteresis  float8,
  severity    text not null default 'warning' check (severity in ('info', 'warning', 'critical')),
  -- Where it applies; null means everywhere.
  site        text,
  device      text,
  device_type text,
  tag         text,
  enabled     boolean not null default true,
  changed_at  timestamptz not null default now()
);

-- When a site's incidents are recorded but page nobody. It always ends by itself.
create table maintenance (
  id         bigint generated always as identity primary key,
  site       text not null,
  reason     text not null,
  by         text,
  starts_at  timestamptz not null default clock_timestamp(),
  ends_at    timestamptz not null check (ends_at > starts_at)
);
create index maintenance_site on maintenance (site, ends_at);

create function under_maintenance(p_site text, p_at timestamptz) returns boolean language sql stable as $$
  select exists (select from holdfast.maintenance where site = p_site and p_at >= starts_at and p_at < ends_at)
$$;

-- One row per cause: the id is made of rule, twin and the message that opened it, so a replay finds it there.
-- open → acknowledged → cleared; what clears by itself may do so without anybody's acknowledgement.
create table incident (
  id               text primary key,
  rule             text not null,
  kind             text not null check (kind in ('threshold', 'range', 'rate', 'absence', 'anomaly', 'link')),
  severity         text not null check (severity in ('info', 'warning', 'critical')),
  site             text not null,
  -- Null: it concerns the whole site.
  device           text,
  metric           text,
  -- One line for people.
  summary          text not null,
  threshold        float8,
  opened_at        timestamptz not null,
  opened_value     float8,
  acknowledged_at  timestamptz,
  acknowledged_by  text,
  acknowledge_note text,
  cleared_at       timestamptz,
  cleared_value    float8,
  -- Who cleared it by hand; null when the readings did.
  cleared_by       text,
  clear_note       text,
  -- Known only afterwards, from a backlog: it pages nobody.
  late             boolean not null default false,
  -- The site was under maintenance when it opened: it pages nobody.
  maintenance      boolean not null default false
);
create index incident_opened on incident (opened_at desc, id);
create index incident_twin on incident (site, device, opened_at desc);

-- Who is told of incidents, and where.
create table channel (
  id           text primary key,
  kind         text not null check (kind in ('webhook', 'nats')),
  -- webhook: the URL; nats: the first token of the subject, before the site's name.
  target       text not null,
  -- webhook: what its bodies are signed with.
  secret       text check (kind <> 'webhook' or secret is not null),
  -- Null: every site.
  sites        text[],
  severity_min text not null default 'info' check (severity_min in ('info', 'warning', 'critical')),
  enabled      boolean not null default true,
  changed_at   timestamptz not null default now()
);
insert into channel (id, kind, target) values ('nats', 'nats', 'incidents');

-- What each channel has yet to be told, or was told: written with the incident, worked off by the partition's owner. No
-- reference to the channel: one that is deleted just then must not fail the transaction of history.
create table delivery (
  incident        text not null,
  event           text not null check (event in ('opened', 'cleared')),
  channel         text not null,
  partition       int not null,
  state           text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
  attempts        int not null default 0,
  next_attempt_at timestamptz not null default clock_timestamp(),
  -- Under which epoch somebody has it in hand; a later owner does not wait for that one.
  taken_epoch     bigint not null default 0,
  last_error      text,
  -- Of a flood: the message that told it together with others.
  digest          text,
  created_at      timestamptz not null default clock_timestamp(),
  done_at         timestamptz,
  primary key (incident, event, channel)
) with (fillfactor = 70);
create index delivery_pending on delivery (channel, next_attempt_at) where state = 'pending';
create index delivery_done on delivery (done_at) where state <> 'pending';

-- Nodes whose lease holds. After a start of PostgreSQL itself everybody has that long to say so.
create function live_nodes(lease_ms int) returns setof holdfast.node language sql stable as $$
  select * from holdfast.node
   where greatest(heartbeat_at, pg_postmaster_start_time()) > clock_timestamp() - make_interval(secs => lease_ms / 1000.0)
$$;

-- A node's heartbeat, answered with the cluster as it is: live nodes, and who owns what.
create function beat(p_id text, p_name text, p_actors boolean, p_draining boolean, lease_ms int) returns jsonb
language plpgsql as $$
begin
  insert into holdfast.node as n (id, name, actors, draining) values (p_id, p_name, p_actors, p_draining)
  on conflict (id) do update set draining = excluded.draining, heartbeat_at = clock_timestamp();
  delete from holdfast.node where heartbeat_at < clock_timestamp() - interval '1 day';
  return (select jsonb_build_object(
    'nodes', (select jsonb_agg(jsonb_build_object('id', id, 'name', name, 'actors', actors, 'draining', draining,
                'heartbeatAgeMs', extract(epoch from clock_timestamp() - heartbeat_at) * 1000) order by id)
                from holdfast.live_nodes(lease_ms)),
    'partitions', (select coalesce(jsonb_agg(jsonb_build_object('id', id, 'epoch', epoch, 'owner', owner) order by id), '[]')
                     from holdfast.partition)));
end $$;

-- Takes those partitions that `ids` names and that nobody alive owns. The new epoch is above every earlier one, even those
-- of a database that was restored from an older backup.
create function claim(node text, ids int[], lease_ms int) returns table (partition int, epoch bigint) language sql as $$
  update holdfast.partition p
     set epoch = greatest(p.epoch + 1, (extract(epoch from clock_timestamp()) * 1e6)::bigint),
         owner = node, claimed_at = clock_timestamp()
   where p.id = any (ids)
     and (p.owner is null or p.owner = node or p.owner not in (select id from holdfast.live_nodes(lease_ms)))
  returning p.id, p.epoch
$$;

-- Incidents as the transitions say, in whatever order and however often they come, and what the channels are to be told
-- of them. A clear carries its opening, so one that comes first leaves the whole incident; an opening after it changes
-- nothing. Only an incident that is new here, or cleared here, is told, so a replay tells nobody again. A late one, which
-- nobody was told, gives way to any other of its rule and device that is over and that it lies over: they are one cause.
-- One that is open may have been over long ago, in a database from a backup.
create function note_incidents(p_partition int, p_incidents jsonb) returns void language plpgsql as $$
begin
  if p_incidents = '[]' then return; end if;
  with incoming as (
    select distinct on (id) id, rule, kind, severity, site, device, metric, summary, threshold, opened_value, cleared_value,
           late, to_timestamp(opened_at / 1000.0) as opened_at, to_timestamp(cleared_at / 1000.0) as cleared_at
      from jsonb_to_recordset(p_incidents) as r (id text, rule text, kind text, severity text, site text, device text,
           metric text, summary text, threshold float8, opened_at float8, opened_value float8, cleared_at float8,
           cleared_value float8, late boolean)
     order by id, cleared_at nulls last
  ), opened as (
    insert into holdfast.incident (id, rule, kind, severity, site, device, metric, summary, threshold, opened_at,
                                   opened_value, cleared_at, cleared_value, late, maintenance)
    select id, rule, kind, severity, site, device, metric, summary, threshold, opened_at, opened_value, cleared_at,
           cleared_value, late, holdfast.under_maintenance(site, opened_at)
      from incoming r
     where not late or not exists (
             select from (select id, site, device, rule, opened_at, cleared_at from holdfast.incident
                          union all
                          select id, site, device, rule, opened_at, cleared_at from incoming where not late) as i
              where i.site = r.site and i.device = r.device and i.rule = r.rule and i.id <> r.id
                and i.opened_at < r.cleared_at and i.cleared_at > r.opened_at)
    on conflict (id) do nothing
    returning *
  ), cleared as (
    update holdfast.incident i set cleared_at = r.cleared_at, cleared_value = r.cleared_value
      from incoming r
     where i.id = r.id and i.cleared_at is null and r.cleared_at is not null
    returning i.id
  ), part_of_another as (
    delete from holdfast.incident i using incoming r
     where i.late and not r.late and i.site = r.site and i.device = r.device and i.rule = r.rule and i.id <> r.id
       and i.opened_at < r.cleared_at and i.cleared_at > r.opened_at
  )
  insert into holdfast.delivery (incident, event, channel, partition)
  select o.id, e.event, c.id, p_partition
    from opened o
    join holdfast.channel c on c.enabled and (c.sites is null or o.site = any (c.sites))
     and array_position(array['info', 'warning', 'critical'], o.severity)
         >= array_position(array['info', 'warning', 'critical'], c.severity_min)
    join (values ('opened'), ('cleared')) as e (event) on e.event = 'opened' or o.cleared_at is not null
   where not o.late and not o.maintenance
  union all
  -- Who was told that it opened is told that it is over, maintenance or not.
  select d.incident, 'cleared', d.channel, p_partition
    from cleared join holdfast.delivery d on d.incident = cleared.id and d.event = 'opened'
  on conflict (incident, event, channel) do nothing;
end $$;

-- Logs, devices and shapes have numbers that cloud nodes remember. After another start of PostgreSQL, which may be one from a
-- backup, they may stand for something else (B, R).
create function server_started() returns text language sql stable as
  $$ select extract(epoch from pg_postmaster_start_time())::text $$;
create function expect_server(started text) returns void language plpgsql as $$
begin
  if started <> holdfast.server_started() then
    raise exception 'PostgreSQL has been started anew' using errcode = 'HF003';
  end if;
end $$;

-- The last step of every history transaction, sent together with COMMIT so that a paused writer holds no lock:
-- fence (D), ledger (B) with its counts, cursors, checkpointed twins, incidents. Raises HF001 for a stale epoch and
-- HF002 when a range is settled already.
create function settle(p_partition int, p_epoch bigint, p_ranges jsonb, p_minutes jsonb, p_cursors jsonb, p_twins jsonb,
                       p_incidents jsonb)
returns void language plpgsql as $$
declare
  entry record;
begin
  perform 1 from holdfast.partition where id = p_partition and epoch = p_epoch for share;
  if not found then
    raise exception 'partition % is not owned under epoch % any more', p_partition, p_epoch using errcode = 'HF001';
  end if;

  for entry in select * from jsonb_to_recordset(p_ranges) as r (log int, ranges text, late bigint, thinned bigint,
                                                                lost bigint, quarantined bigint, expired bigint) loop
    update holdfast.gateway_log
       set settled = settled + entry.ranges::int8multirange,
           late = late + entry.late, thinned = thinned + entry.thinned, lost = lost + entry.lost,
           quarantined = quarantined + entry.quarantined, expired = expired + entry.expired
     where id = entry.log and not settled && entry.ranges::int8multirange;
    if not found then
      raise exception 'log %: part of % is settled already', entry.log, entry.ranges using errcode = 'HF002';
    end if;
  end loop;

  insert into holdfast.ledger_minute as m (log, minute, status, messages)
  select log, to_timestamp(minute * 60.0), status, messages
    from jsonb_to_recordset(p_minutes) as r (log int, minute bigint, status text, messages bigint)
  on conflict (log, minute, status) do update set messages = m.messages + excluded.messages;

  insert into holdfast.stream_cursor as c (partition, lane, stream_created, stream_sequence)
  select p_partition, lane, created, sequence
    from jsonb_to_recordset(p_cursors) as r (lane text, created text, sequence bigint)
  on conflict (partition, lane) do update
     set stream_created = excluded.stream_created,
         stream_sequence = case when c.stream_created = excluded.stream_created
                                then greatest(c.stream_sequence, excluded.stream_sequence)
                                else excluded.stream_sequence end;

  insert into holdfast.twin as t (site, device, version, state)
  select site, device, version, state
    from jsonb_to_recordset(p_twins) as r (site text, device text, version bigint, state text)
  on conflict (site, device) do update
     set version = excluded.version, state = excluded.state
   where t.version < excluded.version;

  perform holdfast.note_incidents(p_partition, p_incidents);
end $$;
