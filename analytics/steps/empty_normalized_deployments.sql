-- normalized_deployments without a row, for as long as nobody has worked it out.
CREATE OR REPLACE TEMP TABLE found (
  team_id VARCHAR, window_start TIMESTAMP, window_end TIMESTAMP, as_of TIMESTAMP, state VARCHAR, builders DOUBLE,
  builder_weeks DOUBLE, authors BIGINT, units BIGINT, pending_units BIGINT, unreviewed_units BIGINT,
  reopened_units BIGINT, failed_units BIGINT, unsized_prs BIGINT, median_lines DOUBLE, survival_14 DOUBLE,
  survival_30 DOUBLE, nd DOUBLE, nd_low DOUBLE, nd_high DOUBLE, nd_per_builder_week DOUBLE, is_frozen BOOLEAN
)
