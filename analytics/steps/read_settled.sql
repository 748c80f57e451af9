-- The table of windows as they were when they had settled, from a list of JSON objects.
CREATE OR REPLACE TEMP TABLE found AS
SELECT unnest(from_json(CAST($rows AS JSON), '[{
  "team_id": "VARCHAR", "window_start": "TIMESTAMP", "nd": "DOUBLE", "builder_weeks": "DOUBLE",
  "seen_at": "TIMESTAMP"
}]'), max_depth := 2)
