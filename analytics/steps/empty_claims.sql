-- waste_claims without a row, for as long as nobody has looked for waste.
CREATE OR REPLACE TEMP TABLE found (
  call_id VARCHAR, rule VARCHAR, finding_id VARCHAR, claimed_usd DECIMAL(18,9), cost_usd DECIMAL(18,9),
  started_at TIMESTAMP, on_day DATE, team_id VARCHAR, model VARCHAR,
  parts STRUCT(finding_id VARCHAR, ticket_id VARCHAR, claimed_usd DECIMAL(18,9))[], also_in VARCHAR[], as_of TIMESTAMP
)
