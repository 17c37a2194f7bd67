-- Minutes of what is sent often: charts of weeks at a resolution of minutes read these in place of every reading. An hour of
-- one device and metric is a row, or has none: then its minutes follow from its readings. A row has all readings of the hour
-- that are in chunks, or were; those still in `message`, and summaries, come beside it (B, C).

set local search_path = holdfast, public;

create table minutes (
  device  int not null,
  metric  int not null,
  -- The hour's beginning.
  at      timestamptz not null,
  -- How many have readings: the length of the columns, which are told in cloud/history/chunks/minutes.ts.
  minutes smallint not null,
  -- As in `chunk`.
  forms   smallint[] not null,
  bases   bigint[] not null,
  steps   bigint[] not null,
  places  int[] not null,
  body    bytea not null,
  floats  float8[],
  primary key (device, metric, at)
);

-- What expires.
create index minutes_at on minutes (at);
