-- The table of budgets, from a list of JSON objects. Amounts are texts there, so that they stay exact.
CREATE OR REPLACE TEMP TABLE found AS
SELECT unnest(from_json(CAST($rows AS JSON), '[{
  "name": "VARCHAR", "scope": "VARCHAR", "kind": "VARCHAR", "value": "VARCHAR", "pattern": "VARCHAR",
  "limit_usd": "DECIMAL(18,9)", "period": "VARCHAR", "timezone": "VARCHAR", "on_exceed": "VARCHAR",
  "warn_at": ["DOUBLE"], "mode": "VARCHAR", "owner": "VARCHAR",
  "raises": [{
    "amount_usd": "DECIMAL(18,9)", "until_at": "TIMESTAMP", "reason": "VARCHAR", "by": "VARCHAR", "at": "TIMESTAMP",
    "value": "VARCHAR"
  }],
  "since": "TIMESTAMP"
}]'), max_depth := 2)
