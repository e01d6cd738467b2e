"""The metadata of a datastrip, MTD_DS.xml: what tells whether a simulated granule's geometry was refined.

Tags and their places are those of ESA's products (Sentinel-2 Products Specification, PSD 14); of the real file's
twenty megabytes, mostly of orbit and attitude, only what names the datastrip and says how its geometry was made.
"""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from h2crop_data.simulate.sentinel2.granules import Granule, datatake_id
from h2crop_data.simulate.stac_fields import iso

SCHEMA = "https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-{level}_Datastrip_Metadata.xsd"


def datastrip_xml(granule: Granule, level: str, refined: bool) -> str:
    """The metadata of a granule's datastrip; level: L2A or L1C. The same for the same arguments."""
    root = Element(f"n1:Level-{level[1:]}_DataStrip_ID", {"xmlns:n1": SCHEMA.format(level=level[1:])})
    general = SubElement(root, "n1:General_Info")
    datatake = SubElement(general, "Datatake_Info", {"datatakeIdentifier": datatake_id(granule)})
    put_texts(
        datatake,
        SPACECRAFT_NAME=f"Sentinel-{granule.platform[1:]}",
        DATATAKE_TYPE="INS-NOBS",
        DATATAKE_SENSING_START=iso(granule.datatake, "milliseconds"),
        SENSING_ORBIT_NUMBER=str(granule.relative_orbit),
        SENSING_ORBIT_DIRECTION="DESCENDING",
    )
    strip = SubElement(general, "Datastrip_Time_Info")
    put_texts(strip, DATASTRIP_SENSING_START=iso(granule.strip_start, "milliseconds"))
    processing = SubElement(general, "Processing_Info")
    put_texts(
        processing,
        PROCESSING_LEVEL=f"Level-{level[1:]}",
        PROCESSING_BASELINE=granule.baseline,
        UTC_DATE_TIME=iso(granule.generation, "milliseconds"),
        PROCESSING_CENTER="simulated",
    )
    image = SubElement(root, "n1:Image_Data_Info")
    geometric = SubElement(image, "Geometric_Info", {"metadataLevel": "Standard"})
    put_texts(geometric, RGM="COMPUTED")
    SubElement(geometric, "Image_Refining", {"flag": "REFINED" if refined else "NOT_REFINED"})
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True, short_empty_elements=False)
    return text.decode("utf-8") + "\n"


def put_texts(parent: Element, **texts: str) -> None:
    """Children with a text each."""
    for tag, text in texts.items():
        SubElement(parent, tag).text = text
