-- Budgets and periods that are asked about, from a list of JSON objects: what budget_charges needs of `budget_terms`.
CREATE OR REPLACE TEMP TABLE found AS
SELECT unnest(from_json(CAST($rows AS JSON), '[{
  "name": "VARCHAR", "kind": "VARCHAR", "value": "VARCHAR", "pattern": "VARCHAR", "period": "VARCHAR",
  "period_start": "TIMESTAMP", "period_end": "TIMESTAMP"
}]'), max_depth := 2)
