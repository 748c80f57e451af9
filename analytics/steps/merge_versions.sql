-- What changed in a work table since its versions were last written down: all that differs from the latest version of its
-- key, so that what a crash cut off is not lost. Times of a key's versions never go back.
CREATE OR REPLACE TEMP TABLE new_versions AS
WITH latest AS (
  SELECT row(*COLUMNS(getvariable('key'))) AS row_key, fields, seen_at, is_gone
  FROM (
    SELECT seen_at, is_gone, fields, unnest(fields)
    FROM (
      SELECT seen_at, is_gone, struct_pack(*COLUMNS(* EXCLUDE (seen_at, is_gone))) AS fields
      FROM read_parquet($stored, union_by_name = true, hive_partitioning = false)
    )
  )
  QUALIFY row_number() OVER (PARTITION BY row_key ORDER BY seen_at DESC) = 1
),
present AS (
  SELECT row_key, fields FROM merged WHERE what <> 'gone'
)
SELECT
  coalesce(present.fields, latest.fields) AS fields,
  greatest(CAST($seen_at AS TIMESTAMP), seen_at + INTERVAL 1 MICROSECOND) AS seen_at,
  present.row_key IS NULL AS is_gone
FROM present FULL JOIN latest USING (row_key)
WHERE CASE WHEN present.row_key IS NULL THEN NOT is_gone
  ELSE coalesce(is_gone, true) OR present.fields IS DISTINCT FROM latest.fields END
