-- The table of the scorecard's constants, from a list of JSON objects.
CREATE OR REPLACE TEMP TABLE found AS
SELECT unnest(from_json(CAST($rows AS JSON), '[{
  "version": "INTEGER", "since": "TIMESTAMP", "period": "VARCHAR", "production": ["VARCHAR"],
  "epic_types": ["VARCHAR"], "merged_repos": ["VARCHAR"], "join_hours": "BIGINT", "join_overlap": "DOUBLE",
  "join_lines": "BIGINT", "settle_days": "BIGINT", "tiny_lines": "BIGINT", "first_median_lines": "BIGINT",
  "units_min": "BIGINT", "windows_min": "BIGINT", "windows_back": "BIGINT", "builders_min": "BIGINT",
  "signal_min": "BIGINT", "signal_share": "DOUBLE", "signal_growth": "DOUBLE", "signal_spend": "DOUBLE", "signal_flat": "DOUBLE",
  "signal_parts": "BIGINT", "signal_minutes": "BIGINT", "signal_burst_days": "BIGINT", "signal_burst": "DOUBLE",
  "signal_parked": "DOUBLE", "signal_sessions": "BIGINT", "signal_calls": "BIGINT", "signal_evenness": "DOUBLE",
  "samples": "BIGINT", "seed": "BIGINT"
}]'), max_depth := 2)
