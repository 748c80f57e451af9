-- Tags and price details are objects of plain values; own keys of the details begin with x_.
SELECT "x_RowId", "Tags", "SkuPriceDetails"
FROM exported
WHERE json_type("Tags") <> 'OBJECT' OR json_type("SkuPriceDetails") <> 'OBJECT'
  OR len(list_filter(json_keys("SkuPriceDetails"), lambda k: NOT starts_with(k, 'x_'))) > 0
  OR len(list_filter(json_keys("Tags"), lambda k: json_type("Tags", '$."' || k || '"') IN ('OBJECT', 'ARRAY', 'NULL'))) > 0
