-- What the rules of waste judge by. One row per installation.
-- @as_of: Moment of judgement, UTC: the variable judged_at of the session, else as_of, else the last moment that calls tell of
SELECT
  settings, versions, parameters,
  coalesce(
    CAST(getvariable('judged_at') AS TIMESTAMP),
    CAST(getvariable('as_of') AS TIMESTAMP),
    (SELECT greatest(max(started_at), max(recorded_at)) FROM calls),
    TIMESTAMP '1970-01-01'
  ) AS as_of
FROM waste_settings
