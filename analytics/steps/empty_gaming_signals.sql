-- gaming_signals without a row, for as long as nobody has worked it out.
CREATE OR REPLACE TEMP TABLE found (
  team_id VARCHAR, window_start TIMESTAMP, signal VARCHAR, cases BIGINT, value DOUBLE, usd DECIMAL(38,9),
  evidence VARCHAR, as_of TIMESTAMP
)
