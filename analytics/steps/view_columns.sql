-- Columns of the views in the present catalog, in their order.
SELECT table_name, list(column_name ORDER BY column_index) AS columns
FROM duckdb_columns()
WHERE database_name = current_database() AND schema_name = current_schema()
GROUP BY table_name
