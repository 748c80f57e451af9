-- scorecard_flow without a row, for as long as nobody has worked it out.
CREATE OR REPLACE TEMP TABLE found (
  team_id VARCHAR, window_start TIMESTAMP, type VARCHAR, units BIGINT, lead_hours_p50 DOUBLE, lead_hours_p75 DOUBLE,
  open_hours_p50 DOUBLE, open_hours_p75 DOUBLE, as_of TIMESTAMP
)
