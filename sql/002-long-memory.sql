-- The long memory: hours that are over leave `message` for columnar chunks, an hour of a device in a row or two, and their
-- aggregates are kept beside. Every reading is in exactly one of `message`, `chunk` and (when its gateway had no room)
-- `summary`; every number is in exactly one of `message`, `aggregate` and `summary` (B, C).

set local search_path = holdfast, public;

-- Messages of one device, shape, log and kind within a day, as columns: time, sequence, element, the shape's numbers, its texts.
-- How a column is written is told in cloud/history/chunks/series.ts, columns.ts and chunk.ts; `unpack` reads it.
create table chunk (
  -- Of the first message and of the last.
  at         timestamptz not null,
  until      timestamptz not null,
  device     int not null,
  shape      int not null,
  log        int not null,
  kind       smallint not null,
  messages   int not null,
  -- How many of the columns are numbers.
  numbers    smallint not null,
  -- By column: form and digits, first value, step, where it begins in `body` or `floats`.
  forms      smallint[] not null,
  bases      bigint[] not null,
  steps      bigint[] not null,
  places     int[] not null,
  body       bytea not null,
  floats     float8[],
  words      text[],
  claimed_at timestamptz[]
) partition by range (at);
create index chunk_device_at on chunk (device, at);

-- What became of the numbers of one device and metric in an hour or a day (by UTC) that left `message` or `summary`. Of several
-- readings at one time the lowest counts as the first and the highest as the last; of thinned ones nobody knows them.
create table aggregate (
  device   int not null,
  metric   int not null,
  seconds  int not null check (seconds in (3600, 86400)),
  at       timestamptz not null,
  count    bigint not null,
  minimum  float8 not null,
  maximum  float8 not null,
  mean     float8 not null,
  first    float8,
  first_at timestamptz,
  last     float8,
  last_at  timestamptz,
  primary key (device, metric, seconds, at)
);

-- What expires, an index for it: hours become days, days go.
create index aggregate_at on aggregate (seconds, at);

-- How long what devices of the type sent is kept, in days: {raw, hourly, daily}; what is not named as for everybody.
alter table device_type add retention jsonb not null default '{}';

-- As in 001, for both tables of a day.
create or replace function ensure_day(day date) returns void language plpgsql set lock_timeout = '5s' as $$
declare
  parent text;
  name text;
begin
  foreach parent in array array['message', 'chunk'] loop
    name := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    continue when to_regclass('holdfast.' || name) is not null;
    perform pg_advisory_xact_lock(hashtext('holdfast.ensure_day'));
    continue when exists (select from pg_class where relname = name and relnamespace = 'holdfast'::regnamespace);
    execute format('create table holdfast.%I (like holdfast.%I including all)', name, parent);
    execute format('alter table holdfast.%I attach partition holdfast.%I for values from (%L) to (%L)',
      parent, name, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
  end loop;
end $$;

-- Days that are there already.
do $$
begin
  perform holdfast.ensure_day(to_date(substring(c.relname from '\d{8}$'), 'YYYYMMDD'))
     from pg_inherits p join pg_class c on c.oid = p.inhrelid
    where p.inhparent = 'holdfast.message'::regclass and c.relname ~ '^message_\d{8}$';
end $$;

-- One column of a chunk, by its place from 1, as whole numbers.
create function unpack(c chunk, place int) returns setof bigint language plpgsql immutable parallel safe as $$
declare
  width      int     := c.forms[place] & 15;
  cumulative boolean := c.forms[place] & 16 <> 0;
  step       bigint  := c.steps[place];
  value      bigint  := c.bases[place];
  bytes      bytea   := substring(c.body from c.places[place] + 1);
  wide       int     := width * c.messages;
  residual   bigint  := 0;
  added      int;
begin
  for i in 0 .. c.messages - 1 loop
    added := width;
    if width = 1 then
      residual := get_byte(bytes, i);
      if residual > 127 then residual := residual - 256; end if;
      if residual = -128 then added := 8; end if;
    elsif width = 2 then
      residual := get_byte(bytes, 2 * i) << 8 | get_byte(bytes, 2 * i + 1);
      if residual > 32767 then residual := residual - 65536; end if;
      if residual = -32768 then added := 8; end if;
    elsif width = 4 then
      residual := ('x' || encode(substring(bytes from 4 * i + 1 for 4), 'hex'))::bit(32)::int;
      if residual = -2147483648 then added := 8; end if;
    elsif width = 8 then
      residual := ('x' || encode(substring(bytes from 8 * i + 1 for 8), 'hex'))::bit(64)::bigint;
    end if;
    -- It did not fit: it follows behind the column.
    if added <> width then
      residual := ('x' || encode(substring(bytes from wide + 1 for 8), 'hex'))::bit(64)::bigint;
      wide := wide + 8;
    end if;
    if not cumulative then return next value + residual + step * i;
    else
      if i > 0 then value := value + residual + step; end if;
      return next value;
    end if;
  end loop;
end $$;

-- Which messages are in a chunk.
create function chunk_messages(c chunk) returns table (sequence bigint, element smallint) language sql immutable parallel safe as
  $$ select s, e::smallint from rows from (holdfast.unpack(c, 2), holdfast.unpack(c, 3)) as m (s, e) $$;

-- The readings of one metric in a chunk. `type` and `place` as in shape_metric.
create function chunk_readings(c chunk, type "char", place int) returns
  table (at timestamptz, sequence bigint, element smallint, number float8, word text, claimed_at timestamptz)
language plpgsql immutable parallel safe as $$
declare
  times     bigint[] := array(select holdfast.unpack(c, 1));
  sequences bigint[] := array(select holdfast.unpack(c, 2));
  elements  bigint[] := array(select holdfast.unpack(c, 3));
  -- Microseconds in one of its units.
  unit      float8   := power(10::float8, c.forms[1] >> 5);
  own       int      := 3 + place + case when type = 's' then c.numbers else 0 end;
  is_float  boolean  := c.forms[own] & 31 = 31;
  scale     float8   := power(10::float8, c.forms[own] >> 5);
  vals      bigint[] := case when c.forms[own] & 31 <> 31 then array(select holdfast.unpack(c, own)) end;
begin
  for i in 1 .. c.messages loop
    at := c.at + times[i] * unit * interval '1 microsecond';
    sequence := sequences[i];
    element := elements[i];
    claimed_at := c.claimed_at[i];
    if type = 's' then word := c.words[vals[i] + 1];
    elsif is_float then number := c.floats[c.places[own] + i];
    else number := vals[i] / scale;
    end if;
    return next;
  end loop;
end $$;

-- History as people and Grafana read it: one row per reading, wherever it is kept. A condition on site, device or metric
-- decides which chunks are read; one on the time alone does not: see `readings`.
create or replace view reading as
  select d.site, d.name as device, m.name as metric, r.at as time,
         case when m.type <> 's' then r.numbers[m.position] end as value,
         case when m.type = 's' then r.texts[m.position] end as text,
         case when m.type = 'b' then r.numbers[m.position] <> 0 end as truth,
         (array['telemetry', 'event', 'status', 'location'])[r.kind + 1] as kind,
         r.claimed_at, r.device as device_id, r.log, r.sequence, r.element
    from message r
    join device d on d.id = r.device
    join shape_metric m on m.shape = r.shape
  union all
  select d.site, d.name, m.name, r.at, r.number, r.word, case when m.type = 'b' then r.number <> 0 end,
         (array['telemetry', 'event', 'status', 'location'])[c.kind + 1],
         r.claimed_at, c.device, c.log, r.sequence, r.element
    from chunk c
    join device d on d.id = c.device
    join shape_metric m on m.shape = c.shape
   cross join lateral chunk_readings(c, m.type, m.position) r;

-- The same for a range of time, both ends included, which decides what is read: what Grafana should ask. Null names everything.
create function readings(p_site text, p_device text, p_metric text, p_from timestamptz, p_to timestamptz)
returns setof reading language sql stable as $$
  select d.site, d.name, m.name, r.at,
         case when m.type <> 's' then r.numbers[m.position] end,
         case when m.type = 's' then r.texts[m.position] end,
         case when m.type = 'b' then r.numbers[m.position] <> 0 end,
         (array['telemetry', 'event', 'status', 'location'])[r.kind + 1],
         r.claimed_at, r.device, r.log, r.sequence, r.element
    from holdfast.message r
    join holdfast.device d on d.id = r.device
    join holdfast.shape_metric m on m.shape = r.shape
   where r.at between p_from and p_to
     and (p_site is null or d.site = p_site) and (p_device is null or d.name = p_device)
     and (p_metric is null or m.name = p_metric)
  union all
  select d.site, d.name, m.name, r.at, r.number, r.word, case when m.type = 'b' then r.number <> 0 end,
         (array['telemetry', 'event', 'status', 'location'])[c.kind + 1],
         r.claimed_at, c.device, c.log, r.sequence, r.element
    from holdfast.chunk c
    join holdfast.device d on d.id = c.device
    join holdfast.shape_metric m on m.shape = c.shape
   cross join lateral holdfast.chunk_readings(c, m.type, m.position) r
   -- A chunk lies within one day, by UTC.
   where c.at >= date_trunc('day', p_from, 'UTC') and c.at <= p_to and c.until >= p_from
     and r.at between p_from and p_to
     and (p_site is null or d.site = p_site) and (p_device is null or d.name = p_device)
     and (p_metric is null or m.name = p_metric)
$$;
