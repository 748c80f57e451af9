-- The rows of model_rates, from a list of JSON objects.
CREATE OR REPLACE TEMP TABLE found AS
SELECT unnest(from_json(CAST($rows AS JSON), '[{
  "provider": "VARCHAR", "model": "VARCHAR", "input_rate": "BIGINT", "cache_read_rate": "BIGINT",
  "cache_write_rate": "BIGINT", "output_rate": "BIGINT"
}]'), max_depth := 2)
