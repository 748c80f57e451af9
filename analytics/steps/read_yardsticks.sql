-- The table of yardsticks, from a list of JSON objects.
CREATE OR REPLACE TEMP TABLE found AS
SELECT unnest(from_json(CAST($rows AS JSON), '[{
  "quarter": "TIMESTAMP", "repo": "VARCHAR", "median_lines": "DOUBLE", "units": "BIGINT", "frozen_at": "TIMESTAMP"
}]'), max_depth := 2)
