-- waste_found without a row, for as long as nobody has looked for waste.
CREATE OR REPLACE TEMP TABLE found (
  finding_id VARCHAR, rule VARCHAR, rule_version VARCHAR, kind VARCHAR, group_key VARCHAR, ticket_id VARCHAR,
  team_id VARCHAR, teams VARCHAR[], models VARCHAR[], calls BIGINT, unpriced_calls BIGINT, call_ids VARCHAR[],
  called_at TIMESTAMP[], first_call_at TIMESTAMP, last_call_at TIMESTAMP, recoverable_usd DECIMAL(18,9),
  low_usd DECIMAL(18,9), high_usd DECIMAL(18,9), claimed_usd DECIMAL(18,9), also_in VARCHAR[], sentence VARCHAR,
  evidence VARCHAR, as_of TIMESTAMP
)
