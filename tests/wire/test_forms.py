import pytest

from tinkex_proxy.wire import forms


def test_every_kind_of_chunk_has_a_list_of_fields() -> None:
    """And every field belongs to some kind."""
    kinds = forms.CHUNK_FIELDS
    listed = {name for required, optional in kinds.values() for name in required | optional}
    assert listed | {"type"} == set(forms.ChunkForm.__struct_fields__)


def test_every_field_of_a_datum_belongs_to_one_form() -> None:
    fields = [*forms.SHORT_FORM, *forms.LONG_FORM]
    assert sorted(fields) == sorted(forms.DatumForm.__struct_fields__)


@pytest.mark.parametrize("struct", [forms.DatumForm, forms.ChunkForm])
def test_nothing_is_required_of_a_form_that_stands_for_several(struct: type) -> None:
    assert struct() is not None
