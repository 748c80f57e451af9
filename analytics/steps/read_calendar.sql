-- The table of calendar periods, from a list of JSON objects.
CREATE OR REPLACE TEMP TABLE found AS
SELECT unnest(from_json(CAST($rows AS JSON), '[{
  "period": "VARCHAR", "timezone": "VARCHAR", "period_start": "TIMESTAMP", "period_end": "TIMESTAMP"
}]'), max_depth := 2)
