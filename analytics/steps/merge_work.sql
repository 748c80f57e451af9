-- A work table with the rows that come in, by primary key (the variable key): a row replaces the stored one whole,
-- unless that is of a later time; one without a time is of no later time than one that has it. Stored rows of a group
-- (the column that the variable part_of names) of which others come in, or that $emptied names, are gone.
CREATE OR REPLACE TEMP TABLE merged AS
WITH stored AS (
  SELECT row(*COLUMNS(getvariable('key'))) AS row_key, fields, to_json(fields) AS texts
  FROM read_parquet($stored, union_by_name = true, hive_partitioning = false) AS fields
),
incoming AS (
  SELECT row(*COLUMNS(getvariable('key'))) AS row_key, fields, to_json(fields) AS texts
  FROM read_json($incoming, format = 'newline_delimited', columns = $columns, maximum_object_size = 67108864) AS fields
),
pairs AS (
  SELECT
    row_key, stored.fields AS old, incoming.fields AS new, stored.texts ->> getvariable('part_of') AS old_group,
    CAST(coalesce(stored.texts ->> 'updated_at', stored.texts ->> 'synced_at') AS TIMESTAMP) AS old_time,
    CAST(coalesce(incoming.texts ->> 'updated_at', incoming.texts ->> 'synced_at') AS TIMESTAMP) AS new_time
  FROM stored FULL JOIN incoming USING (row_key)
),
judged AS (
  SELECT *, CASE
    WHEN new IS NULL AND old_group IN (SELECT texts ->> getvariable('part_of') FROM incoming) THEN 'gone'
    WHEN new IS NULL AND list_contains(CAST($emptied AS VARCHAR[]), old_group) THEN 'gone'
    WHEN new IS NULL THEN 'kept'
    WHEN old IS NULL THEN 'new'
    WHEN old_time > coalesce(new_time, TIMESTAMP '-infinity') THEN 'older'
    WHEN old IS DISTINCT FROM new THEN 'changed'
    ELSE 'same'
  END AS what
  FROM pairs
)
SELECT row_key, what, CASE WHEN what IN ('new', 'changed') THEN new ELSE old END AS fields
FROM judged
