-- scorecard without a row, for as long as nobody has worked it out.
CREATE OR REPLACE TEMP TABLE found (
  team_id VARCHAR, window_start TIMESTAMP, window_end TIMESTAMP, as_of TIMESTAMP, state VARCHAR, reading VARCHAR,
  builders DOUBLE, builder_weeks DOUBLE, authors BIGINT, units BIGINT, pending_units BIGINT, nd DOUBLE,
  nd_low DOUBLE, nd_high DOUBLE, nd_per_builder_week DOUBLE, ndi DOUBLE, ndi_low DOUBLE, ndi_high DOUBLE,
  first_nd DOUBLE, restated_nd DOUBLE, failed_share DOUBLE, rework_share DOUBLE, unreviewed_share DOUBLE,
  pending_share DOUBLE, survival_14 DOUBLE, survival_30 DOUBLE, median_lines DOUBLE, unsized_prs BIGINT,
  is_frozen BOOLEAN, calls BIGINT, unpriced_calls BIGINT, spend_usd DECIMAL(38,9), direct_usd DECIMAL(38,9),
  inherited_usd DECIMAL(38,9), split_usd DECIMAL(38,9), overhead_usd DECIMAL(38,9), unattributed_usd DECIMAL(38,9),
  disputed_usd DECIMAL(38,9), waste_usd DECIMAL(38,9), cts_ai_low_usd DOUBLE, cts_ai_high_usd DOUBLE,
  cts_ai_from_usd DOUBLE, cts_ai_to_usd DOUBLE, coverage DOUBLE, call_coverage DOUBLE, overhead_share DOUBLE
)
