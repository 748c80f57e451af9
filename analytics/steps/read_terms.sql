-- The table of the scorecard's constants, from a list of JSON objects.
CREATE OR REPLACE TEMP TABLE found AS
SELECT unnest(from_json(CAST($rows AS JSON), '[{
  "version": "INTEGER", "since": "TIMESTAMP", "period": "VARCHAR", "production": ["VARCHAR"],
  "epic_types": ["VARCHAR"], "merged_repos": ["VARCHAR"], "join_hours": "BIGINT", "join_overlap": "DOUBLE",
  "settle_days": "BIGINT", "fail_hours": "BIGINT", "tiny_lines": "BIGINT", "first_median_lines": "BIGINT",
  "units_min": "BIGINT", "windows_min": "BIGINT", "windows_back": "BIGINT", "builders_min": "BIGINT",
  "samples": "BIGINT", "seed": "BIGINT"
}]'), max_depth := 2)
